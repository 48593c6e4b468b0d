//! Where a server is, as people write it: `host=... port=... user=... dbname=...`, or `postgresql://...`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::Host;
use tokio_postgres::Config;

/// For an attempt to connect, unless the connection string has a `connect_timeout`.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection string. It may hold a password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnInfo {
    config: Arc<Config>,
}

impl FromStr for ConnInfo {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        // The parser's own words may repeat what was written, a password in it too.
        let mut config: Config = s.parse().map_err(|_| "it is no connection string".to_string())?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("the connection string names no host".to_string());
        }
        if config.get_application_name().is_none() {
            config.application_name("shmuring");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        Ok(Self { config: Arc::new(config) })
    }
}

impl ConnInfo {
    /// What the client takes.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same server, another database.
    #[must_use]
    pub fn database(&self, name: &str) -> Self {
        let mut config = Config::clone(&self.config);
        config.dbname(name);
        Self { config: Arc::new(config) }
    }

    /// How long an attempt to connect may take, the greeting included.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.config.get_connect_timeout().copied().filter(|d| !d.is_zero()).unwrap_or(CONNECT)
    }
}

impl fmt::Display for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut word = "host=";
        for host in self.config.get_hosts() {
            match host {
                Host::Tcp(name) => write!(f, "{word}{name}")?,
                #[cfg(unix)]
                Host::Unix(path) => write!(f, "{word}{}", path.display())?,
            }
            word = ",";
        }
        if self.config.get_hosts().is_empty() {
            for addr in self.config.get_hostaddrs() {
                write!(f, "{word}{addr}")?;
                word = ",";
            }
        }
        word = " port=";
        for port in self.config.get_ports() {
            write!(f, "{word}{port}")?;
            word = ",";
        }
        if let Some(name) = self.config.get_dbname() {
            write!(f, " dbname={name}")?;
        }
        if let Some(name) = self.config.get_user() {
            write!(f, " user={name}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnInfo({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_shown_without_their_password() {
        let wanted = "host=/run/pg port=5433 dbname=d user=u";
        for text in
            ["host=/run/pg port=5433 user=u dbname=d password=secret", "postgresql://u:secret@%2Frun%2Fpg:5433/d"]
        {
            let c: ConnInfo = text.parse().unwrap();
            assert_eq!(c.to_string(), wanted);
            assert!(!format!("{c:?}").contains("secret"));
        }
        let two: ConnInfo = "host=a,b port=1,2".parse().unwrap();
        assert_eq!(two.to_string(), "host=a,b port=1,2");
    }

    #[test]
    fn what_is_no_connection_string_is_refused_and_not_repeated() {
        for wrong in ["frog", "host=", "password=secret", "host=a port=secret", "", "postgresql://u:secret@:x/"] {
            let e = wrong.parse::<ConnInfo>().unwrap_err();
            assert!(!e.contains("secret"), "{e}");
        }
    }
}
