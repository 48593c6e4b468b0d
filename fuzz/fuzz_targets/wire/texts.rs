//! Where pages are said to be: on a command line, in an embedder's configuration, in a file.

use crate::input::Input;
use crate::service::grpc::spec::{GrpcSpec, ShardMap};
use crate::service::spec::ServiceSpec;
use crate::service::standby::ConnInfo;
use crate::wire::metadata::{ShardId, Token};

/// A map that was accepted makes sense.
fn check(map: &ShardMap) {
    assert!((1..=255).contains(&map.servers.len()) && map.stripe > 0);
    assert_eq!(usize::from(map.sharding().count), map.servers.len());
    for (shard, server) in map.servers.iter().enumerate() {
        assert!(server.to_ascii_lowercase().starts_with("http"), "{server}");
        let target = map.target(shard);
        let many = map.servers.len() > 1;
        let own = ShardId { number: shard as u8, count: map.servers.len() as u8 };
        assert_eq!(target.shard, if many { own } else { ShardId::default() });
        assert_eq!(target.shard.to_string().parse(), Ok(target.shard));
        assert_eq!((target.tenant, target.timeline), (map.tenant, map.timeline));
        assert_eq!(target.tenant.to_string().parse(), Ok(target.tenant));
    }
}

pub fn servers(input: &mut Input<'_>) {
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    // An error names the token file and what is wrong, never a token.
    assert!(Token::new(&text).is_ok() == (!text.is_empty() && text.bytes().all(|b| (33..127).contains(&b))));
    if let Ok(map) = ShardMap::parse(&text) {
        check(&map);
    }
    let Ok(spec) = text.parse::<ServiceSpec>() else { return };
    let (kind, named) = text.split_once(':').unwrap();
    if let ServiceSpec::Standby(at) = spec {
        assert_eq!((kind, named.parse()), ("standby", Ok(at)));
        return;
    }
    assert_eq!(spec.to_string().parse(), Ok(spec.clone()));
    match (spec, (kind, named)) {
        (ServiceSpec::Store(dir), ("store", named)) | (ServiceSpec::DataDir(dir), ("datadir", named)) => {
            assert!(!named.is_empty() && dir.to_str() == Some(named));
        }
        // What has no server in it is a file, which is not there to be read.
        (ServiceSpec::Grpc(GrpcSpec::Inline(map)), ("grpc", _)) => check(&map),
        (ServiceSpec::Grpc(GrpcSpec::File(file)), ("grpc", named)) => {
            assert!(!named.is_empty() && file.to_str() == Some(named));
        }
        (spec, _) => panic!("{text:?} is {spec:?}"),
    }
}

/// A password that is nothing else of a connection string.
const SECRET: &str = "q7Zx9wq7";
const KEYS: [&str; 14] = [
    "host",
    "host",
    "hostaddr",
    "port",
    "user",
    "dbname",
    "options",
    "application_name",
    "sslmode",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives_idle",
    "target_session_attrs",
    "frog",
];

/// Some characters of the input.
fn word(input: &mut Input<'_>) -> String {
    let n = input.below(12);
    let bytes: Vec<u8> = (0..n).map(|_| input.byte()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `host=... port=...`, as it must be for the most part, with a password somewhere.
fn pairs(input: &mut Input<'_>) -> String {
    let (n, at) = (input.below(6), input.below(6));
    let mut text = String::new();
    for i in 0..=n {
        let (key, value) =
            (input.choose(&KEYS), input.choose(&["a", "/run/pg", "a,b", "5432", "1,2", "::1", "-1", ""]));
        let value = if input.one_in(4) { word(input) } else { value.to_owned() };
        let (open, close) = if input.one_in(3) { ("'", input.choose(&["'", "'", "", "\\'"])) } else { ("", "") };
        text += &format!("{key}{}{open}{value}{close} ", input.choose(&["=", "=", " = ", "", "=="]));
        if i == at {
            text += &format!("password={open}{SECRET}{close} ");
        }
    }
    text
}

fn url(input: &mut Input<'_>) -> String {
    let scheme = input.choose(&["postgresql://", "postgresql://", "postgres://", "postgresql:/", "http://"]);
    let (host, more) = (input.choose(&["a", "a:1", "a:1,b:2", "%2Frun%2Fpg", "[::1]:5", ":x", ""]), word(input));
    let user = if input.one_in(3) { word(input) } else { "u".to_owned() };
    format!(
        "{scheme}{user}:{SECRET}@{host}/{more}{}",
        input.choose(&["", "?host=b", "?port=x", "?connect_timeout=3", "?%"])
    )
}

/// Where a standby is, as people write it: what is no connection string is an error, and no password is ever shown.
pub fn standby(input: &mut Input<'_>) {
    let (text, is_ours) = match input.below(3) {
        0 => (pairs(input), true),
        1 => (url(input), true),
        _ => (String::from_utf8_lossy(input.rest()).into_owned(), false),
    };
    let (read, spec) = (text.parse::<ConnInfo>(), format!("standby:{text}").parse::<ServiceSpec>());
    assert_eq!(spec.clone().ok(), read.clone().ok().map(ServiceSpec::Standby));
    let is_ours = is_ours && text.matches(SECRET).count() == 1;
    let hidden = |shown: String| assert!(!is_ours || !shown.contains(SECRET), "{shown}");
    if let (Err(e), Err(of_spec)) = (&read, &spec) {
        hidden(format!("{e} {of_spec}"));
    }
    // Who mistypes the kind has written a password too.
    for kind in ["", "standbi:", "Standby:"] {
        format!("{kind}{text}").parse::<ServiceSpec>().err().into_iter().for_each(hidden);
    }
    let Ok(at) = read else { return };
    let config = at.config();
    assert!(!config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty(), "{text:?} names no server");
    assert!(!at.patience().is_zero() && config.get_application_name().is_some());
    let other = at.database("x y");
    assert_eq!((other.config().get_dbname(), other.config().get_hosts()), (Some("x y"), config.get_hosts()));
    assert_eq!(other.patience(), at.patience());
    // Quotes that do not fit may have made it a part of something else.
    if config.get_password().is_some_and(|p| p.windows(SECRET.len()).any(|w| w == SECRET.as_bytes())) {
        hidden(format!("{at} {at:?} {:?}", spec));
    }
}
