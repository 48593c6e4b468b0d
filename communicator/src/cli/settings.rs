//! Settings that can be changed while the communicator serves: a file, read at the start and at SIGHUP.
//!
//! A file and a signal, as PostgreSQL has them: they need no word in the region, which a backend could damage, no socket
//! that outlives its process, and what is set is still set after a take-over.

use crate::compare::{Compare, Mode};
use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a settings file can say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    debug_compare_local: Mode,
    debug_compare_local_error: bool,
}

impl Settings {
    /// `NAME = VALUE` lines; `#` begins a comment.
    fn parse(text: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        for line in lines(text) {
            let (number, name, value) = line?;
            let wrong = |why: String| format!("line {number}: {name}: {why}");
            match name {
                "debug_compare_local" => settings.debug_compare_local = value.parse().map_err(wrong)?,
                "debug_compare_local_error" => {
                    settings.debug_compare_local_error = on_or_off(value).map_err(wrong)?;
                }
                _ => return Err(unknown(number, name)),
            }
        }
        Ok(settings)
    }
}

/// The `NAME = VALUE` lines of a settings file, each with its number; `#` begins a comment.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Result<(usize, &str, &str), String>> {
    let uncommented = (1..).zip(text.lines()).map(|(n, line)| (n, line.split('#').next().unwrap_or("").trim()));
    uncommented.filter(|(_, line)| !line.is_empty()).map(|(number, line)| {
        let (name, value) =
            line.split_once('=').ok_or_else(|| format!("line {number}: '{line}' is not NAME = VALUE"))?;
        Ok((number, name.trim(), value.trim()))
    })
}

/// A switch.
pub(super) fn on_or_off(value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("'{value}' is not on or off")),
    }
}

/// What is said of a name that is none.
pub(super) fn unknown(number: usize, name: &str) -> String {
    format!("line {number}: there is no setting '{name}'")
}

/// The file, and what it governs.
pub(super) struct Governed {
    pub(super) file: Option<PathBuf>,
    pub(super) compare: Option<Arc<Compare>>,
}

impl Governed {
    /// Reads the file and switches everything to what it says. On an error everything stays as it is.
    pub(super) fn apply(&self) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let settings = read(file)?;
        match &self.compare {
            Some(compare) => compare.switch(settings.debug_compare_local, settings.debug_compare_local_error),
            None if settings.debug_compare_local != Mode::None => {
                return Err(format!("{}: debug_compare_local needs --compare-local DIR", file.display()));
            }
            None => {}
        }
        tracing::info!(file = %file.display(), ?settings, "settings");
        Ok(())
    }

    /// At SIGHUP.
    pub(super) fn reload(&self) {
        if self.file.is_none() {
            tracing::info!("SIGHUP: there is no settings file (--settings)");
        } else if let Err(e) = self.apply() {
            tracing::error!("SIGHUP: the settings stay as they are: {e}");
        }
    }
}

/// More than all settings take.
const MOST: u64 = 64 << 10;

fn read(file: &Path) -> Result<Settings, String> {
    Settings::parse(&text_of(file)?).map_err(|e| format!("{}: {e}", file.display()))
}

/// The text of a settings file.
pub(super) fn text_of(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    // A FIFO must not stop the process that is to handle its signals.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(file);
    let read = opened.and_then(|f| match f.metadata()? {
        m if m.is_file() && m.len() <= MOST => f.take(MOST).read_to_string(&mut text),
        _ => Err(Error::new(ErrorKind::InvalidInput, "not a file of at most 64 KiB")),
    });
    read.map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_parse_and_nonsense_says_where_it_is() {
        let text = "# a comment\n\n debug_compare_local = lfc # another\ndebug_compare_local_error=on\n";
        let wanted = Settings { debug_compare_local: Mode::Lfc, debug_compare_local_error: true };
        assert_eq!(Settings::parse(text), Ok(wanted));
        assert_eq!(Settings::parse(""), Ok(Settings::default()));
        for (text, says) in [
            ("\nfrog", "line 2: 'frog'"),
            ("frog = 1", "no setting 'frog'"),
            ("debug_compare_local = most", "'most' is not none, prefetch, lfc or all"),
            ("debug_compare_local_error = yes", "'yes' is not on or off"),
        ] {
            let e = Settings::parse(text).unwrap_err();
            assert!(e.contains(says), "{e}");
        }
    }
}
