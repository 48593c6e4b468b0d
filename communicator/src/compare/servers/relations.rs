//! What there is to compare: the logged relations of each database, as the primary's catalogs have them.

use crate::service::standby::link::rows;
use crate::service::standby::ConnInfo;
use crate::service::{Result, ServiceError};
use shmuring::request::RelTag;

/// One fork of a relation.
#[derive(Clone, Debug)]
pub(super) struct Fork {
    pub(super) database: String,
    /// With its schema.
    pub(super) relation: String,
    pub(super) rel: RelTag,
    /// Whose mask its pages have.
    pub(super) kind: String,
    /// Blocks that the primary had when the comparison began.
    pub(super) blocks: u32,
}

/// What is not compared, and never was to be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeftOut {
    pub(super) unlogged: u64,
    pub(super) temporary: u64,
}

/// Main forks and visibility maps. The free space map is not logged; the init fork is an unlogged relation's.
const FORKS: [u8; 2] = [0, 2];

/// Built-in handlers of access methods have fixed numbers, which names do not.
const RELATIONS: &str = "SELECT n.nspname || '.' || c.relname, c.relpersistence::text, pg_relation_filenode(c.oid), \
     CASE WHEN c.relisshared THEN 1664::oid WHEN c.reltablespace = 0 THEN d.dattablespace ELSE c.reltablespace END, \
     CASE WHEN c.relisshared THEN 0::oid ELSE d.oid END, \
     CASE WHEN c.relkind = 'S' THEN 'sequence' ELSE CASE a.amhandler::oid::int WHEN 3 THEN 'heap' \
     WHEN 330 THEN 'btree' WHEN 331 THEN 'hash' WHEN 332 THEN 'gist' WHEN 333 THEN 'gin' WHEN 334 THEN 'spgist' \
     WHEN 335 THEN 'brin' ELSE 'other' END END \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     JOIN pg_database d ON d.datname = current_database() LEFT JOIN pg_am a ON a.oid = c.relam \
     WHERE c.relkind IN ('r', 'i', 'S', 't', 'm') ORDER BY c.oid";

/// The databases to compare: those asked for, or all that take connections.
pub(super) async fn databases(primary: &ConnInfo, asked: &[String]) -> Result<Vec<String>> {
    let all = rows(primary, "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY datname").await?;
    let all = all.iter().map(|row| row.try_get(0)).collect::<std::result::Result<Vec<String>, _>>();
    let all = all.map_err(|e| ServiceError::new(libc::EPROTO, e.to_string()))?;
    if let Some(missing) = asked.iter().find(|name| !all.contains(name)) {
        let what = format!("there is no database {missing} on the primary that takes connections");
        return Err(ServiceError::new(libc::ENOENT, what));
    }
    Ok(if asked.is_empty() { all } else { asked.to_vec() })
}

/// The forks of a database, their sizes not yet known. Shared relations are with the first one only.
pub(super) async fn forks(
    primary: &ConnInfo,
    database: &str,
    is_first: bool,
    left_out: &mut LeftOut,
) -> Result<Vec<Fork>> {
    let at = primary.database(database);
    let mut found = Vec::new();
    for row in rows(&at, RELATIONS).await? {
        let wrong = |e: tokio_postgres::Error| ServiceError::new(libc::EPROTO, format!("{at}: {e}"));
        let persistence: String = row.try_get(1).map_err(wrong)?;
        match persistence.as_str() {
            "u" => left_out.unlogged += 1,
            "t" => left_out.temporary += 1,
            _ => {
                // Dropped since the catalog was read.
                let Some(rel_number) = row.try_get::<_, Option<u32>>(2).map_err(wrong)? else { continue };
                let (spc_oid, db_oid) = (row.try_get(3).map_err(wrong)?, row.try_get(4).map_err(wrong)?);
                if db_oid == 0 && !is_first {
                    continue;
                }
                let (relation, kind): (String, String) =
                    (row.try_get(0).map_err(wrong)?, row.try_get(5).map_err(wrong)?);
                let fork = |fork| Fork {
                    database: database.to_string(),
                    relation: relation.clone(),
                    rel: RelTag { spc_oid, db_oid, rel_number, fork },
                    kind: kind.clone(),
                    blocks: 0,
                };
                found.extend(FORKS.into_iter().map(fork));
            }
        }
    }
    Ok(found)
}
