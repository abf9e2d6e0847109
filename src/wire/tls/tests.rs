//! Handshakes in memory: which certificate is shown, what a caller's is worth, resumed or not.

mod made;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{DuplexStream, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::client;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};

use self::made::{Authority, Der, Made, asked, odd_names, self_signed, uri};
use super::*;
use crate::policy::caller::certificate::Standing;

fn listener(ours: &[&Made], client_ca: &[Der], asks: Asks) -> Listener {
    let served = ours.iter().map(|made| made.served()).collect();
    let material = Material::new(served, client_ca, asks).unwrap();
    let handshakes = Handshakes::new(&ConnectionLimits::default(), 2);
    Listener::new(material, Arc::new(handshakes))
}

/// A caller that trusts these authorities and may have a certificate.
fn caller(
    trusted: &[&Der],
    own: Option<&Made>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for one in trusted {
        roots.add((*one).clone()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(own.chain.clone(), own.private_key())
            .unwrap(),
    }
}

type Client = client::TlsStream<DuplexStream>;

/// Both ends of one handshake.
async fn meet(
    listener: &Listener,
    config: &Arc<ClientConfig>,
    host: &str,
) -> (
    Result<Opened<DuplexStream>, Unopened<DuplexStream>>,
    io::Result<Client>,
) {
    let (ours, theirs) = duplex(64 * 1024);
    let limits = ConnectionLimits::default();
    let opening = async {
        let mut opened = listener
            .open(ours, [192, 0, 2, 1].into(), &limits, || ())
            .await?;
        opened.io.write_all(b"x").await.unwrap();
        opened.io.flush().await.unwrap();
        Ok(opened)
    };
    let connecting = async {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::clone(config));
        let mut client = connector.connect(name, theirs).await?;
        // Before the byte come tickets, or in its place an alert.
        client.read_exact(&mut [0]).await?;
        Ok(client)
    };
    tokio::join!(opening, connecting)
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name() {
    let ca = Authority::new("ours");
    let first = ca.issue(&["first.example"], |_| {});
    let wild = ca.issue(&["*.apps.example"], |_| {});
    let exact = ca.issue(&["a.apps.example", "192.0.2.7"], |_| {});
    let all = [&first, &wild, &exact];
    let listener = listener(&all, &[], Asks::Never);
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(caller(&[&ca.certificate], None, version));
        for (host, expected) in [
            ("first.example", 0),
            ("a.apps.example", 2),
            ("A.Apps.Example", 2),
            ("b.apps.example", 1),
        ] {
            let (opened, client) = meet(&listener, &config, host).await;
            let shown = client.unwrap();
            let shown = &shown.get_ref().1.peer_certificates().unwrap()[0];
            assert_eq!(*shown, all[expected].chain[0], "{host}");
            let shown = opened.unwrap().secured.shown;
            for (at, name) in ["first.example", "b.apps.example", "a.apps.example"]
                .into_iter()
                .enumerate()
            {
                let covers_itself = at == expected || (expected, at) == (1, 2);
                assert_eq!(shown.misdirects(name), !covers_itself, "{host} {name}");
            }
        }
        // Nobody's name, and none at all: the first, which does not please this caller.
        for host in ["x.example", "a.b.apps.example", "apps.example", "192.0.2.7"] {
            let (_, client) = meet(&listener, &config, host).await;
            let fault = client.unwrap_err().to_string();
            assert!(fault.contains("not valid for name"), "{host}: {fault}");
        }
    }
}

#[tokio::test]
async fn of_two_with_one_name_the_one_a_caller_can_verify() {
    let ca = Authority::new("ours");
    let of = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let made = asked(&["gw.example"], |_| {}).signed_by(&key, &ca.issuer);
        Made {
            chain: vec![made.unwrap().der().clone()],
            key,
        }
    };
    let (ed25519, p256) = (of(&rcgen::PKCS_ED25519), of(&rcgen::PKCS_ECDSA_P256_SHA256));
    let listener = listener(&[&ed25519, &p256], &[], Asks::Never);
    let mut provider = ring::default_provider();
    let mapping = provider.signature_verification_algorithms.mapping;
    let without: Vec<_> = mapping
        .iter()
        .filter(|(scheme, _)| *scheme != SignatureScheme::ED25519)
        .copied()
        .collect();
    provider.signature_verification_algorithms.mapping = without.leak();
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate.clone()).unwrap();
    let old = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let new = caller(&[&ca.certificate], None, &TLS13);
    for (config, expected) in [(new, &ed25519), (old, &p256)] {
        let (_, client) = meet(&listener, &Arc::new(config), "gw.example").await;
        let client = client.unwrap();
        let shown = client.get_ref().1.peer_certificates().unwrap();
        assert_eq!(shown[0], expected.chain[0]);
    }
}

#[tokio::test]
async fn protocols_are_agreed_on_or_there_is_no_connection() {
    let ca = Authority::new("ours");
    let own = ca.issue(&["gw.example"], |_| {});
    let listener = listener(&[&own], &[], Asks::Never);
    for (offered, expected) in [
        (&["h2", "http/1.1"][..], Some(true)),
        (&["http/1.1", "h2"], Some(true)),
        (&["http/1.1"], Some(false)),
        (&["http/1.0", "http/1.1"], Some(false)),
        (&[], Some(false)),
        (&["http/1.0"], None),
        (&["h3", "spdy/3"], None),
    ] {
        let mut config = caller(&[&ca.certificate], None, &TLS13);
        config.alpn_protocols = offered
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let (opened, client) = meet(&listener, &Arc::new(config), "gw.example").await;
        let speaks_h2 = opened.ok().map(|opened| opened.speaks_h2);
        assert_eq!(speaks_h2, expected, "{offered:?}");
        if expected.is_none() {
            let fault = client.unwrap_err().to_string();
            assert!(fault.contains("NoApplicationProtocol"), "{fault}");
        }
    }
}

/// What a handshake notes of a caller's certificate: its standing, its DNS names, its URIs.
type Noted<'a> = (Standing, &'a [&'a str], &'a [&'a str]);

async fn check_presented(client_ca: &Authority, what: &str, own: &Made, expected: Noted<'_>) {
    let ours = Authority::new("ours");
    let shown = ours.issue(&["gw.example"], |_| {});
    let listener = listener(
        &[&shown],
        std::slice::from_ref(&client_ca.certificate),
        Asks::Always,
    );
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(caller(&[&ours.certificate], Some(own), version));
        // Twice: the second time the session is resumed, and the certificate comes from the ticket.
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (opened, client) = meet(&listener, &config, "gw.example").await;
            let client = client.unwrap_or_else(|error| panic!("{what}: {error}"));
            let session = client.get_ref().1;
            let was = session.handshake_kind();
            assert!(
                was == Some(kind)
                    || kind == HandshakeKind::Full
                        && was == Some(HandshakeKind::FullWithHelloRetryRequest),
                "{what}: {was:?}"
            );
            let noted = opened.unwrap().secured.certificate.unwrap();
            let (standing, dns_names, uris) = expected;
            assert_eq!(noted.standing, standing, "{what}, {kind:?}");
            let texts =
                |list: &[Box<str>]| list.iter().map(|it| it.to_string()).collect::<Vec<_>>();
            assert_eq!(texts(&noted.dns_names), dns_names, "{what}");
            assert_eq!(texts(&noted.uris), uris, "{what}");
            assert_eq!(noted.spki_sha256, own.spki_sha256(), "{what}");
        }
    }
}

#[tokio::test]
async fn the_names_of_a_callers_certificate() {
    use Standing::Vouched;
    let ca = Authority::new("callers");
    let desk: &[&str] = &["desk.example"];
    let nobody: &[&str] = &[];

    let good = ca.issue(desk, |_| {});
    check_presented(&ca, "vouched for", &good, (Vouched, desk, nobody)).await;
    let upper = ca.issue(&["DESK.Example"], |asked| {
        asked.subject_alt_names.push(uri("spiffe://example/Desk"));
    });
    let expected = (Vouched, desk, &["spiffe://example/Desk"][..]);
    check_presented(&ca, "a name in capitals, and a URI", &upper, expected).await;
    let wild = ca.issue(&["*.desk.example"], |_| {});
    let expected = (Vouched, &["*.desk.example"][..], nobody);
    check_presented(&ca, "a wildcard", &wild, expected).await;
    let unnamed = ca.issue(&[], |_| {});
    check_presented(
        &ca,
        "a common name only",
        &unnamed,
        (Vouched, nobody, nobody),
    )
    .await;
}

#[tokio::test]
async fn who_vouches_for_a_callers_certificate() {
    use Standing::{OutOfDate, Unknown, Vouched};
    let ca = Authority::new("callers");
    let stranger = Authority::new("strangers");
    let date = rcgen::date_time_ymd;
    let desk: &[&str] = &["desk.example"];
    let nobody: &[&str] = &[];

    let late = |is_vouched| (OutOfDate { is_vouched }, desk, nobody);
    let unknown = stranger.issue(desk, |_| {});
    check_presented(&ca, "of a stranger", &unknown, (Unknown, desk, nobody)).await;
    let namesake = Authority::new("callers").issue(desk, |_| {});
    check_presented(&ca, "of a namesake", &namesake, (Unknown, desk, nobody)).await;

    let over = |asked: &mut CertificateParams| asked.not_after = date(2020, 1, 1);
    let expired = ca.issue(desk, over);
    check_presented(&ca, "expired", &expired, late(true)).await;
    let expired = stranger.issue(desk, over);
    check_presented(&ca, "a stranger's, expired", &expired, late(false)).await;
    let early = ca.issue(desk, |asked| asked.not_before = date(3000, 1, 1));
    check_presented(&ca, "not yet valid", &early, late(true)).await;

    let server = ca.issue(desk, |asked| {
        asked.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
    });
    check_presented(&ca, "for servers only", &server, (Unknown, desk, nobody)).await;
    let both = ca.issue(desk, |asked| {
        asked.insert_extended_key_usage(ExtendedKeyUsagePurpose::ServerAuth);
        asked.insert_extended_key_usage(ExtendedKeyUsagePurpose::ClientAuth);
    });
    check_presented(&ca, "for both", &both, (Vouched, desk, nobody)).await;
}

#[tokio::test]
async fn chains_of_a_callers_certificate() {
    use Standing::{Unknown, Vouched};
    let ca = Authority::new("callers");
    let desk: &[&str] = &["desk.example"];
    let nobody: &[&str] = &[];

    let middle = ca.below("middle");
    let mut through = middle.issue(desk, |_| {});
    check_presented(
        &ca,
        "its issuer left out",
        &through,
        (Unknown, desk, nobody),
    )
    .await;
    through.chain.push(middle.certificate.clone());
    check_presented(&ca, "through another", &through, (Vouched, desk, nobody)).await;
    let mut borrowed = Authority::new("strangers").issue(desk, |_| {});
    borrowed.chain.push(ca.certificate.clone());
    check_presented(
        &ca,
        "beside an authority",
        &borrowed,
        (Unknown, desk, nobody),
    )
    .await;

    let own = self_signed(desk, |_| {});
    check_presented(&ca, "self-signed", &own, (Unknown, desk, nobody)).await;
    let own_ca = self_signed(&[], |asked| {
        asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    check_presented(
        &ca,
        "self-signed, CA:TRUE",
        &own_ca,
        (Unknown, nobody, nobody),
    )
    .await;
}

#[tokio::test]
async fn names_that_two_readers_do_not_read_alike_are_none() {
    let ca = Authority::new("callers");
    for (what, bytes) in [
        ("a NUL in a name", &b"desk.example\0.evil.example"[..]),
        ("a byte of Latin-1", b"d\xe9sk.example"),
        ("UTF-8", "d\u{e9}sk.example".as_bytes()),
        ("a space", b"desk example"),
        ("nothing", b""),
    ] {
        let odd = ca.issue(&[], |asked| {
            asked.custom_extensions = vec![odd_names(bytes)]
        });
        let noted = Contents::read(&odd.chain[0]).unwrap();
        assert_eq!(&*noted.dns_names, ["good.example".into()], "{what}");
    }
    let nul = ca.issue(&[], |asked| {
        asked.custom_extensions = vec![odd_names(b"desk.example\0.evil.example")];
    });
    let expected = (Standing::Vouched, &["good.example"][..], &[][..]);
    check_presented(&ca, "a NUL in a name", &nul, expected).await;
}

#[tokio::test]
async fn who_needs_a_certificate_and_has_none() {
    let ca = Authority::new("ours");
    let own = ca.issue(&["gw.example"], |_| {});
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(caller(&[&ca.certificate], None, version));
        let required = listener(&[&own], std::slice::from_ref(&ca.certificate), Asks::Always);
        let (opened, client) = meet(&required, &config, "gw.example").await;
        assert!(matches!(opened, Err(Unopened::Failed)));
        let fault = client.unwrap_err().to_string();
        assert!(fault.contains("CertificateRequired"), "{fault}");
        for asks in [Asks::Optionally, Asks::Never] {
            let lenient = listener(&[&own], &[], asks);
            let (opened, _) = meet(&lenient, &config, "gw.example").await;
            assert!(opened.unwrap().secured.certificate.is_none());
        }
    }
}

/// A certificate is public: without its key it is nobody's.
#[tokio::test]
async fn a_certificate_without_its_key() {
    let ca = Authority::new("ours");
    let own = ca.issue(&["gw.example"], |_| {});
    let listener = listener(
        &[&own],
        std::slice::from_ref(&ca.certificate),
        Asks::Optionally,
    );
    let stolen = ca.issue(&["desk.example"], |_| {});
    let thief = KeyPair::generate().unwrap();
    let key: PrivateKeyDer<'_> = PrivatePkcs8KeyDer::from(thief.serialize_der()).into();
    let key = ring::sign::any_supported_type(&key).unwrap();
    let forged = CertifiedKey::new(stolen.chain, key);
    for version in [&TLS12, &TLS13] {
        let mut config = caller(&[&ca.certificate], None, version);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(forged.clone()));
        let (opened, client) = meet(&listener, &Arc::new(config), "gw.example").await;
        assert!(matches!(opened, Err(Unopened::Failed)));
        let fault = client.unwrap_err().to_string();
        assert!(fault.contains("alert"), "{fault}");
    }
}

#[tokio::test]
async fn no_ticket_outlives_a_change() {
    let ca = Authority::new("ours");
    let own = ca.issue(&["gw.example"], |_| {});
    let desk = ca.issue(&["desk.example"], |_| {});
    let other = Authority::new("others");
    for version in [&TLS12, &TLS13] {
        let listener = listener(
            &[&own],
            std::slice::from_ref(&ca.certificate),
            Asks::Optionally,
        );
        let config = Arc::new(caller(&[&ca.certificate], Some(&desk), version));
        let mut seen = Vec::new();
        for round in 0..4 {
            if round == 2 {
                let client_ca = std::slice::from_ref(&other.certificate);
                let material = Material::new(vec![own.served()], client_ca, Asks::Optionally);
                listener.exchange(material.unwrap());
            }
            let (opened, client) = meet(&listener, &config, "gw.example").await;
            let client = client.unwrap();
            let is_resumed = client.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            let noted = opened.unwrap().secured.certificate.unwrap();
            seen.push((is_resumed, noted.standing));
        }
        assert_eq!(
            seen,
            [
                (false, Standing::Vouched),
                (true, Standing::Vouched),
                (false, Standing::Unknown),
                (true, Standing::Unknown),
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_slow_or_speaks_something_else() {
    let ca = Authority::new("ours");
    let own = ca.issue(&["gw.example"], |_| {});
    let listener = listener(&[&own], &[], Asks::Never);
    let limits = ConnectionLimits::default();
    let open = |ours| listener.open(ours, [192, 0, 2, 1].into(), &limits, || ());
    for (sent, patience) in [
        (&b""[..], limits.idle_timeout),
        (b"\x16", limits.header_timeout),
        (b"\x16\x03\x01\x02", limits.header_timeout),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            limits.header_timeout,
        ),
    ] {
        let (ours, mut theirs) = duplex(1024);
        theirs.write_all(sent).await.unwrap();
        let start = Instant::now();
        let opened = open(ours).await;
        match opened {
            Err(Unopened::Silent) => assert!(sent.is_empty()),
            Err(Unopened::Slow) => assert!(!sent.is_empty()),
            other => panic!("{sent:?}: {other:?}"),
        }
        let took = start.elapsed();
        let expected = patience..patience + Duration::from_secs(1);
        assert!(expected.contains(&took), "{sent:?}: {took:?}");
    }
    for sent in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"g",
        b"PRI * HTTP/2.0\r\n\r\nSM",
    ] {
        let (ours, mut theirs) = duplex(1024);
        theirs.write_all(sent).await.unwrap();
        let opened = open(ours).await;
        let Err(Unopened::Plain(first, _)) = opened else {
            panic!("{sent:?}");
        };
        assert!(sent.starts_with(&first));
    }
    for sent in [
        &[0; 600][..],
        b"\x16\x03\x01\x00\x05hello",
        b"\x17\x03\x03\x00\x01x",
        b"\xff",
    ] {
        let (ours, mut theirs) = duplex(1024);
        theirs.write_all(sent).await.unwrap();
        theirs.shutdown().await.unwrap();
        let opened = open(ours).await;
        assert!(matches!(opened, Err(Unopened::Failed)), "{sent:?}");
        let mut answer = Vec::new();
        theirs.read_to_end(&mut answer).await.unwrap();
        let is_alert = answer.is_empty() || answer.starts_with(b"\x15\x03");
        assert!(is_alert, "{sent:?}: {answer:?}");
    }
}
