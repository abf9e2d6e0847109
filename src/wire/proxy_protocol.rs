//! The PROXY header that a balancer sends before anything of the connection it passes on.
//!
//! Both versions, as haproxy.org/download/3.2/doc/proxy-protocol.txt has them. It is read strictly:
//! what no sender writes is refused. The crates for it (ppp, proxy-header) take ports with signs or
//! zeros before them, refuse a LOCAL whose addresses are not as its family says, or leave checksums
//! to others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crc::{CRC_32_ISCSI, Crc};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Longest header of version 1 in bytes, its CRLF included.
const V1_BYTES_MAX: usize = 107;

/// What a header of version 2 begins with.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family and transport, length.
const V2_FIXED_BYTES: usize = 16;

/// Longest header of version 2 in bytes: several times what any sender writes.
const V2_BYTES_MAX: usize = 4096;

/// The TLV that holds a checksum of the header, and the checksum's length.
const CHECKSUM_TYPE: u8 = 0x03;
const CHECKSUM_BYTES: usize = 4;

/// The checksum's polynomial is Castagnoli's.
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it has.
    pub length: usize,
    /// Where the connection comes from. `None`: from the other end itself, as when a balancer asks
    /// whether we live, or from somebody the balancer cannot name.
    pub source: Option<IpAddr>,
}

/// Why a connection cannot be taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// It begins with something else.
    #[error(
        "it does not begin with a PROXY header: let its sender write one (HAProxy: send-proxy-v2), or remove proxy_protocol"
    )]
    Missing,
    /// A header that no sender writes.
    #[error("its PROXY header is malformed")]
    Malformed,
    /// A checksum that is not that of the header.
    #[error("its PROXY header was damaged on the way: the checksum differs")]
    Checksum,
    /// It ended within the header, or before it.
    #[error("it ended before its PROXY header did")]
    Ended,
}

/// Reads the header that a connection begins with, and not a byte of what follows.
///
/// # Errors
/// [`Fault`].
pub(crate) async fn take(stream: &mut TcpStream) -> Result<Header, Fault> {
    let mut bytes = Vec::new();
    let mut seen = [0; 256];
    loop {
        // Looked at first, and then taken as far as it is the header's.
        let count = stream.peek(&mut seen).await.unwrap_or_default();
        if count == 0 {
            return Err(Fault::Ended);
        }
        let before = bytes.len();
        bytes.extend_from_slice(&seen[..count]);
        let header = read(&bytes)?;
        let ours = header.map_or(count, |header| header.length - before);
        let taken = stream.read_exact(&mut seen[..ours]).await;
        taken.map_err(|_| Fault::Ended)?;
        if let Some(header) = header {
            return Ok(header);
        }
    }
}

/// The header that bytes begin with; nothing while all of them belong to one that goes on.
///
/// # Errors
/// [`Fault`], as early as it can be told.
pub fn read(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let begins_with = |start: &[u8]| {
        let compared = bytes.len().min(start.len());
        bytes[..compared] == start[..compared]
    };
    if begins_with(b"PROXY ") {
        read_v1(bytes)
    } else if begins_with(V2_SIGNATURE) {
        read_v2(bytes)
    } else {
        Err(Fault::Missing)
    }
}

fn read_v1(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let beginning = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = beginning.iter().position(u8::is_ascii_control) else {
        return if bytes.len() < V1_BYTES_MAX {
            Ok(None)
        } else {
            Err(Fault::Malformed)
        };
    };
    match &beginning[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if beginning.len() < V1_BYTES_MAX => return Ok(None),
        _ => return Err(Fault::Malformed),
    }
    let line = std::str::from_utf8(&beginning[..end]).map_err(|_| Fault::Malformed)?;
    Ok(Some(Header {
        length: end + b"\r\n".len(),
        source: source_of_line(line).ok_or(Fault::Malformed)?,
    }))
}

/// Where a line says that the connection comes from; `None` if it is no such line.
fn source_of_line(line: &str) -> Option<Option<IpAddr>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    // What else stands there says nothing.
    if family == "UNKNOWN" {
        return Some(None);
    }
    let addresses = [words.next()?, words.next()?];
    let [source, _] = match family {
        "TCP4" => parsed::<Ipv4Addr>(addresses)?.map(IpAddr::from),
        "TCP6" => parsed::<Ipv6Addr>(addresses)?.map(IpAddr::from),
        _ => return None,
    };
    let ports_are_good = [words.next()?, words.next()?].into_iter().all(is_port);
    (ports_are_good && words.next().is_none()).then(|| Some(source.to_canonical()))
}

fn parsed<A: std::str::FromStr>([source, destination]: [&str; 2]) -> Option<[A; 2]> {
    Some([source.parse().ok()?, destination.parse().ok()?])
}

/// Whether a word is a port, written as numbers are.
fn is_port(word: &str) -> bool {
    word.parse::<u16>()
        .is_ok_and(|port| port.to_string() == word)
}

fn read_v2(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let Some((fixed, _)) = bytes.split_first_chunk::<V2_FIXED_BYTES>() else {
        // What is there may be wrong already.
        let is_good = bytes
            .get(12)
            .is_none_or(|version| command(*version).is_some());
        return if is_good {
            Ok(None)
        } else {
            Err(Fault::Malformed)
        };
    };
    let command = command(fixed[12]).ok_or(Fault::Malformed)?;
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let addresses_end = Family::of(fixed[13]).map(|family| V2_FIXED_BYTES + family.bytes());
    // What a LOCAL says of addresses means nothing, so it cannot be wrong.
    let is_good = match command {
        Command::Local => true,
        Command::Proxy => addresses_end.is_some_and(|end| end <= length),
    };
    if !is_good || length > V2_BYTES_MAX {
        return Err(Fault::Malformed);
    }
    let Some(header) = bytes.get(..length) else {
        return Ok(None);
    };
    let checked = match addresses_end {
        Some(end) if end <= length => check_tlvs(header, end),
        _ => Ok(()),
    };
    match (command, checked) {
        (Command::Local, Ok(()) | Err(Fault::Malformed)) => {}
        (_, checked) => checked?,
    }
    let source = match command {
        Command::Local => None,
        Command::Proxy => Family::of(fixed[13]).and_then(|family| family.source(header)),
    };
    Ok(Some(Header { length, source }))
}

#[derive(Clone, Copy)]
enum Command {
    /// The balancer speaks for itself.
    Local,
    /// It passes a connection on.
    Proxy,
}

/// Version and command in one byte.
fn command(byte: u8) -> Option<Command> {
    match byte {
        0x20 => Some(Command::Local),
        0x21 => Some(Command::Proxy),
        _ => None,
    }
}

/// What kind of addresses a header has.
#[derive(Clone, Copy)]
enum Family {
    Unspecified,
    V4,
    V6,
    /// A socket of the balancer's own machine.
    Unix,
}

impl Family {
    /// Family and transport in one byte. Other transports than streams are none of ours.
    fn of(byte: u8) -> Option<Self> {
        match byte {
            0x00 => Some(Self::Unspecified),
            0x11 => Some(Self::V4),
            0x21 => Some(Self::V6),
            0x31 => Some(Self::Unix),
            _ => None,
        }
    }

    /// How long its addresses and ports are.
    fn bytes(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => 12,
            Self::V6 => 36,
            Self::Unix => 216,
        }
    }

    /// The address that the addresses begin with.
    fn source(self, header: &[u8]) -> Option<IpAddr> {
        let addresses = &header[V2_FIXED_BYTES..];
        match self {
            Self::V4 => addresses.first_chunk::<4>().map(|v4| IpAddr::from(*v4)),
            Self::V6 => {
                let v6 = addresses.first_chunk::<16>();
                v6.map(|v6| IpAddr::from(*v6).to_canonical())
            }
            Self::Unspecified | Self::Unix => None,
        }
    }
}

/// Passes over the further values from `at` on, of which only a checksum means anything here.
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), Fault> {
    let mut checksum = None;
    while at < header.len() {
        let [kind, high, low] = *header[at..].first_chunk().ok_or(Fault::Malformed)?;
        let value = at + 3;
        at = value + usize::from(u16::from_be_bytes([high, low]));
        if at > header.len() {
            return Err(Fault::Malformed);
        }
        if kind == CHECKSUM_TYPE
            && (at - value != CHECKSUM_BYTES || checksum.replace(value).is_some())
        {
            return Err(Fault::Malformed);
        }
    }
    let Some(at) = checksum else {
        return Ok(());
    };
    let mut digest = CRC32C.digest();
    digest.update(&header[..at]);
    digest.update(&[0; CHECKSUM_BYTES]);
    digest.update(&header[at + CHECKSUM_BYTES..]);
    if header[at..].first_chunk() == Some(&digest.finalize().to_be_bytes()) {
        Ok(())
    } else {
        Err(Fault::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// The checksummed one below.
    const SUMMED: &str = "0d0a0d0a000d0a515549540a21110013cb0071070a000005dc0401bb0300043cc16dfd";

    fn hex(text: &str) -> Vec<u8> {
        base16ct::lower::decode_vec(text).unwrap()
    }

    /// Version 2 with this version and command, family and transport, and what follows.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    /// A header is the same whatever follows, and every part of it wants more.
    fn check(bytes: &[u8], expected: Result<Option<&str>, Fault>) {
        let source = expected.map(|source| source.map(|text| text.parse().unwrap()));
        let shown = bytes.escape_ascii();
        for after in [
            &b""[..],
            b"G",
            b"\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            &[0x16, 3, 1],
            bytes,
        ] {
            let found = read(&[bytes, after].concat());
            match source {
                Ok(source) => {
                    let length = bytes.len();
                    assert_eq!(found, Ok(Some(Header { length, source })), "{shown}");
                }
                Err(fault) => assert_eq!(found, Err(fault), "{shown}"),
            }
        }
        if source.is_ok() {
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Ok(None), "{shown} cut at {cut}");
            }
        }
    }

    const V4_ADDRESSES: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 5, 0xdc, 4, 1, 0xbb];

    #[test]
    fn as_balancers_send_it() {
        let check = |bytes: &str, expected| check(&hex(bytes), expected);
        let (v4, v6) = (Ok(Some("203.0.113.7")), Ok(Some("2001:db8::7")));
        // Version 1: TCP4, TCP6, UNKNOWN.
        check(
            "50524f58592054435034203230332e302e3131332e372031302e302e302e35203536333234203434330d0a",
            v4,
        );
        check(
            "50524f5859205443503620323030313a6462383a3a3720323030313a6462383a3a35203536333234203434330d0a",
            v6,
        );
        check("50524f585920554e4b4e4f574e0d0a", Ok(None));
        // Version 2: TCP4, TCP6, LOCAL, LOCAL with addresses.
        check(
            "0d0a0d0a000d0a515549540a2111000ccb0071070a000005dc0401bb",
            v4,
        );
        check(
            "0d0a0d0a000d0a515549540a2121002420010db800000000000000000000000720010db8000000000000000000000005dc0401bb",
            v6,
        );
        check("0d0a0d0a000d0a515549540a20000000", Ok(None));
        check(
            "0d0a0d0a000d0a515549540a2011000ccb0071070a000005dc0401bb",
            Ok(None),
        );
        // With the TLV of an AWS endpoint service, and with a checksum.
        check(
            "0d0a0d0a000d0a515549540a21110026cb0071070a000005dc0401bbea001701767063652d3038643262663135666163353030316339",
            v4,
        );
        check(SUMMED, v4);
        // Another version; addresses too short for their family; no family.
        check(
            "0d0a0d0a000d0a515549540a1111000ccb0071070a000005dc0401bb",
            Err(Fault::Malformed),
        );
        check(
            "0d0a0d0a000d0a515549540a2111000bcb0071070a000005dc0401",
            Err(Fault::Malformed),
        );
        check("0d0a0d0a000d0a515549540a21000000", Ok(None));
    }

    const BAD_LINES: [&str; 34] = [
        "PROXY TCP4 203.0.113.7 10.0.0.5 56324 443\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 56324 443\r\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 56324 443 \r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 56324\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 56324 443 80\r\n",
        "PROXY TCP4  203.0.113.7 10.0.0.5 56324 443\r\n",
        "PROXY  TCP4 203.0.113.7 10.0.0.5 56324 443\r\n",
        "PROXY TCP4 203.0.113.7\t10.0.0.5 56324 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 65536 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 +1 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 -1 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 056324 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 56324 00\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 56324 \r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.5 http 443\r\n",
        "PROXY TCP4 203.0.113.007 10.0.0.5 56324 443\r\n",
        "PROXY TCP4 203.0.113 10.0.0.5 56324 443\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.256 56324 443\r\n",
        "PROXY TCP4 203.0.113.7:56324 10.0.0.5 56324 443\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::5 56324 443\r\n",
        "PROXY TCP4 ::ffff:203.0.113.7 10.0.0.5 56324 443\r\n",
        "PROXY TCP6 203.0.113.7 10.0.0.5 56324 443\r\n",
        "PROXY TCP6 2001:db8::7 10.0.0.5 56324 443\r\n",
        "PROXY TCP6 [2001:db8::7] 2001:db8::5 56324 443\r\n",
        "PROXY TCP6 fe80::1%1 2001:db8::5 56324 443\r\n",
        "PROXY tcp4 203.0.113.7 10.0.0.5 56324 443\r\n",
        "PROXY UDP4 203.0.113.7 10.0.0.5 56324 443\r\n",
        "PROXY TCP5 203.0.113.7 10.0.0.5 56324 443\r\n",
        "PROXY unknown\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN \0\r\n",
        "PROXY UNKNOWN\n\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
    ];

    #[test]
    fn lines_of_version_1() {
        let good = |line: &str, source| check(line.as_bytes(), Ok(source));
        good(
            "PROXY TCP4 203.0.113.7 10.0.0.5 0 65535\r\n",
            Some("203.0.113.7"),
        );
        good(
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Some("255.255.255.255"),
        );
        good(
            "PROXY TCP6 ffff:f:f:f:f:f:f:f FFFF::1 1 2\r\n",
            Some("ffff:f:f:f:f:f:f:f"),
        );
        good(
            "PROXY TCP6 ::ffff:203.0.113.7 ::ffff:10.0.0.5 1 2\r\n",
            Some("203.0.113.7"),
        );
        good(
            "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
            None,
        );
        let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!(longest.len(), V1_BYTES_MAX);
        good(longest, None);
        let longer = longest.replace("65535\r", "655350\r");
        for line in BAD_LINES.into_iter().chain([&*longer]) {
            check(line.as_bytes(), Err(Fault::Malformed));
        }
        check(b"PROXY UNKNOWN \xff\r\n", Err(Fault::Malformed));
        check(
            &[b"PROXY TCP4 ", &[b'1'; 200][..]].concat(),
            Err(Fault::Malformed),
        );
    }

    #[test]
    fn other_beginnings_are_told_at_once() {
        for other in [
            "G",
            "GET / HTTP/1.1\r\n",
            "PO",
            "PUT",
            "PATCH",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "PROXX",
            "PROXY\r",
            "PROXY\t",
            "proxy ",
            "Proxy ",
            " PROXY ",
            "\u{16}",
            "\r\nPROXY ",
            "\n",
            "\r\r",
            "\r\n\r\nG",
            "\r\n\r\n\0\r\nQUIT\r",
            "\r\n\r\n\0\r\nquit\n",
            "\0",
        ] {
            assert_eq!(read(other.as_bytes()), Err(Fault::Missing), "{other:?}");
        }
        assert_eq!(read(&[0x16, 3, 1, 0, 5]), Err(Fault::Missing), "TLS");
    }

    #[test]
    fn families_and_commands_of_version_2() {
        let unix = [b'/'; 216];
        for family in 0..=u8::MAX {
            let expected = match family {
                0x00 => Ok(None),
                0x11 => Ok(Some("203.0.113.7")),
                _ => Err(Fault::Malformed),
            };
            let rest = if family == 0 { &[][..] } else { &V4_ADDRESSES };
            check(&v2(0x21, family, rest), expected);
            // LOCAL is never refused, whatever stands there.
            check(&v2(0x20, family, &V4_ADDRESSES), Ok(None));
            check(&v2(0x20, family, b""), Ok(None));
            check(&v2(0x20, family, &[0xff; 99]), Ok(None));
        }
        check(&v2(0x21, 0x31, &unix), Ok(None));
        check(&v2(0x21, 0x31, &unix[..215]), Err(Fault::Malformed));
        let mut mapped = [0; 36];
        mapped[10..16].copy_from_slice(&[0xff, 0xff, 203, 0, 113, 7]);
        check(&v2(0x21, 0x21, &mapped), Ok(Some("203.0.113.7")));
        check(&v2(0x21, 0x21, &mapped[..35]), Err(Fault::Malformed));
        for byte in (0..=u8::MAX).filter(|byte| !matches!(byte, 0x20 | 0x21)) {
            let bytes = v2(byte, 0x11, &V4_ADDRESSES);
            check(&bytes, Err(Fault::Malformed));
            assert_eq!(read(&bytes[..13]), Err(Fault::Malformed), "at once");
        }
    }

    #[test]
    fn values_after_the_addresses() {
        let with = |tlvs: &[u8]| v2(0x21, 0x11, &[&V4_ADDRESSES, tlvs].concat());
        let good = Ok(Some("203.0.113.7"));
        check(&with(&[0x04, 0, 0]), good);
        check(&with(&[0x04, 0, 3, 0, 0, 0, 0xff, 0, 1, 9]), good);
        for tlvs in [
            &[0x04][..],
            &[0x04, 0],
            &[0x04, 0, 1],
            &[0x04, 0xff, 0xff, 0],
            &[0x04, 0, 0, 0x04, 0, 2, 0],
            // Checksums of other lengths.
            &[0x03, 0, 0],
            &[0x03, 0, 3, 1, 2, 3],
            &[0x03, 0, 5, 1, 2, 3, 4, 5],
            &[0x03, 0, 4, 0, 0, 0, 0, 0x03, 0, 4, 0, 0, 0, 0],
        ] {
            check(&with(tlvs), Err(Fault::Malformed));
        }
        check(&with(&[0x03, 0, 4, 0, 0, 0, 0]), Err(Fault::Checksum));
        // The checksum covers what stands after it, too.
        let mut summed = with(&[0x03, 0, 4, 0, 0, 0, 0, 0x04, 0, 2, 7, 7]);
        let sum = CRC32C.checksum(&summed).to_be_bytes();
        summed[31..35].copy_from_slice(&sum);
        check(&summed, good);
        *summed.last_mut().unwrap() ^= 1;
        check(&summed, Err(Fault::Checksum));
        // Bounded.
        let filled = |length: usize| {
            let filler = u16::try_from(length - 31).unwrap().to_be_bytes();
            with(&[&[0x04, filler[0], filler[1]][..], &vec![0; length - 31]].concat())
        };
        check(&filled(V2_BYTES_MAX), good);
        check(&filled(V2_BYTES_MAX + 1), Err(Fault::Malformed));
        let announced = [&V2_SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        assert_eq!(
            read(&announced),
            Err(Fault::Malformed),
            "before it has come"
        );
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let summed = hex(SUMMED);
        let request = b"GET /@api/deki/pages/home HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
        for bit in 0..summed.len() * 8 {
            let mut flipped = [&summed[..], request].concat();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Another type of value is another value; what it meant nobody can tell.
            if bit / 8 == 28 {
                continue;
            }
            let found = read(&flipped);
            assert!(!matches!(found, Ok(Some(_))), "bit {bit}: {found:?}");
        }
    }

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap());
        let (theirs, ours) = tokio::join!(theirs, listener.accept());
        (theirs.unwrap(), ours.unwrap().0)
    }

    #[tokio::test]
    async fn what_follows_stays_where_it_is() {
        let long = v2(
            0x21,
            0x11,
            &[&V4_ADDRESSES[..], &[4, 7, 0xd0], &[0; 2000]].concat(),
        );
        let line = b"PROXY TCP4 203.0.113.7 10.0.0.5 56324 443\r\n".to_vec();
        for header in [hex(SUMMED), long, line] {
            for piece in [1, 7, 256, 300, 4096] {
                let (mut theirs, mut ours) = pair().await;
                theirs.set_nodelay(true).unwrap();
                let sent = [&header[..], b"PROXY UNKNOWN\r\nrest"].concat();
                let sending = async {
                    for piece in sent.chunks(piece) {
                        theirs.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    theirs.shutdown().await.unwrap();
                };
                let (found, ()) = tokio::join!(take(&mut ours), sending);
                let source = Some("203.0.113.7".parse().unwrap());
                let length = header.len();
                assert_eq!(found, Ok(Header { length, source }), "pieces of {piece}");
                let mut rest = String::new();
                ours.read_to_string(&mut rest).await.unwrap();
                assert_eq!(rest, "PROXY UNKNOWN\r\nrest", "one header is taken");
            }
        }
        for cut in [0, 1, 20] {
            let (mut theirs, mut ours) = pair().await;
            theirs.write_all(&hex(SUMMED)[..cut]).await.unwrap();
            drop(theirs);
            assert_eq!(take(&mut ours).await, Err(Fault::Ended));
        }
    }
}
