//! Where pages are said to be: on a command line, in an embedder's configuration, in a file.

use crate::input::Input;
use crate::service::grpc::spec::{GrpcSpec, ShardMap};
use crate::service::spec::ServiceSpec;
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
    assert_eq!(spec.to_string().parse(), Ok(spec.clone()));
    match (spec, text.split_once(':').unwrap()) {
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
