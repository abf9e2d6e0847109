//! The site behind all three, in a process of its own: answers at once, and says of a request whether its token is good.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Outcome, process, proof};

/// Makes the bench this site.
pub(crate) const ARGUMENT: &str = "site";

/// 1 KiB comes down.
pub(crate) const PAGE: &str = "/@api/deki/pages/42/contents?dream.out.format=json";
/// 100 KiB come down.
pub(crate) const FILE: &str = "/@api/deki/files/7/100k";
/// [`LARGE_BYTES`] come down.
pub(crate) const LARGE: &str = "/@api/deki/files/8/100m";
/// Takes what goes up.
pub(crate) const UPLOAD: &str = "/@api/deki/files/9/upload";
/// Verifies the token, and answers with the user and the head as it came.
pub(crate) const PROOF: &str = "/@api/deki/pages/42/info";

pub(crate) const LARGE_BYTES: usize = 100 << 20;
/// Of a body.
pub(crate) static PIECE: [u8; 256 * 1024] = [b'x'; 256 * 1024];

/// The site as its parent sees it.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Site {
    /// Starts this program once more, as a site; it inherits the core.
    pub(crate) fn start() -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let said = child.stdout.take().ok_or("the site says nothing")?;
        BufReader::new(said).read_line(&mut line)?;
        Ok(Self {
            address: line.trim_end().parse()?,
            child,
        })
    }

    /// The time of processors it took so far.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        process::cpu(self.child.id())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Is the site, until it is killed.
pub(crate) fn run() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let listener: TcpListener = socket.listen(4096)?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            // Whoever leaves in the middle of an answer is served no further.
            tokio::spawn(async { drop(serve(stream).await) });
        }
    })
}

async fn serve(mut stream: TcpStream) -> Outcome<()> {
    stream.set_nodelay(true)?;
    // Grows for bodies only, so that a thousand connections are no matter.
    let mut buffer = vec![0; 4096];
    let mut filled = 0;
    loop {
        let end = loop {
            if let Some(end) = head_end(&buffer[..filled]) {
                break end;
            }
            if filled == buffer.len() {
                return Err("a head of more than 4 KiB".into());
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                count => filled += count,
            }
        };
        let head = std::str::from_utf8(&buffer[..end])?;
        let closes = header(head, "connection").is_some_and(|value| value == "close");
        let body = header(head, "content-length").map_or(Ok(0), str::parse)?;
        let target = head.split(' ').nth(1).unwrap_or_default();
        let answer = match target {
            PAGE => Answer::Whole(&SMALL),
            FILE => Answer::Whole(&MEDIUM),
            LARGE => Answer::Large,
            PROOF => Answer::Made(proof::examined(head)),
            UPLOAD => Answer::Made(whole("200 OK", "text/plain", b"taken")),
            // Whoever tries a token out asks this.
            _ => Answer::Made(whole("200 OK", "application/xml", USER)),
        };
        let early = (filled - end).min(body);
        buffer.copy_within(end + early..filled, 0);
        filled -= end + early;
        discard(&mut stream, body - early).await?;
        match answer {
            Answer::Whole(bytes) => stream.write_all(bytes).await?,
            Answer::Made(bytes) => stream.write_all(&bytes).await?,
            Answer::Large => large(&mut stream).await?,
        }
        if closes {
            return Ok(());
        }
    }
}

enum Answer {
    Whole(&'static [u8]),
    Made(Vec<u8>),
    Large,
}

const USER: &[u8] = br#"<user id="7"><nick>crm-0</nick><username>crm-0</username></user>"#;

static SMALL: LazyLock<Vec<u8>> =
    LazyLock::new(|| whole("200 OK", "application/json", &[b'x'; 1024]));
static MEDIUM: LazyLock<Vec<u8>> =
    LazyLock::new(|| whole("200 OK", "application/octet-stream", &[b'x'; 100 * 1024]));

/// An answer with its body.
pub(crate) fn whole(status: &str, media_type: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = head(status, media_type, body.len());
    answer.extend(body);
    answer
}

fn head(status: &str, media_type: &str, length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nServer: Dream-HTTPAPI/1.0\r\nDate: Mon, 02 Feb 2026 03:04:05 GMT\r\n\
         Content-Type: {media_type}\r\nCache-Control: private, max-age=0\r\nETag: \"42.r7\"\r\n\
         X-Data-Stats: request-time-ms=3;\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes()
}

async fn large(stream: &mut TcpStream) -> Outcome<()> {
    stream
        .write_all(&head("200 OK", "application/octet-stream", LARGE_BYTES))
        .await?;
    for _ in 0..LARGE_BYTES / PIECE.len() {
        stream.write_all(&PIECE).await?;
    }
    Ok(())
}

/// Reads a body and forgets it.
async fn discard(stream: &mut TcpStream, mut left: usize) -> Outcome<()> {
    if left == 0 {
        return Ok(());
    }
    let mut buffer = vec![0; PIECE.len().min(left)];
    while left > 0 {
        let most = buffer.len().min(left);
        match stream.read(&mut buffer[..most]).await? {
            0 => return Err("a body breaks off".into()),
            count => left -= count,
        }
    }
    Ok(())
}

/// Where a head ends, behind its empty line.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    let found = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(found + 4)
}

/// The first value of a header, its name in lower case.
pub(crate) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    headers(head)
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// Every header of a head.
pub(crate) fn headers(head: &str) -> impl Iterator<Item = (&str, &str)> {
    head.split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
}
