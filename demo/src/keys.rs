use std::{
    env,
    ffi::OsString,
    fs,
    fs::OpenOptions,
    io::{self, ErrorKind::AlreadyExists, Write},
    iter,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    process,
};

use sessionkit::{Error, ErrorKind, Key, Keyring, Result};

use crate::Options;

const VARIABLE: &str = "SESSIONKIT_KEYS";

const FILE: &str = "keys";

/// The keys of the environment, or else those of a file that is made at the first start: a newcomer
/// has to do nothing, and a restart logs nobody out.
pub(crate) fn keyring(options: &Options) -> Result<Keyring> {
    if env::var_os(VARIABLE).is_some() {
        return Keyring::from_env(VARIABLE);
    }
    from_state_dir(&options.state_dir()?)
}

/// A line with a new key.
pub(crate) fn make() -> Result<()> {
    let text = Key::generate()?.expose_base64();
    writeln!(io::stdout(), "{}", *text).map_err(|error| {
        let problem = "the key cannot be written to the standard output";
        Error::new(ErrorKind::Unavailable, problem).with_source(error)
    })
}

/// Lines about the keys that the app would use, or that come through the standard input.
pub(crate) fn check(input: &[OsString]) -> Result<String> {
    let from_input = match input {
        [] => env::var_os(VARIABLE).is_none(),
        [dash] if dash == "-" => true,
        // Not shown, since it may be a key.
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "a key is checked in {VARIABLE} or in the standard input, not in an argument, \
                     which everybody on this machine can see: if that was one, make another"
                ),
            ));
        }
    };
    let (place, keyring) = if from_input {
        ("the standard input", Keyring::from_file("/dev/stdin")?)
    } else {
        (VARIABLE, Keyring::from_env(VARIABLE)?)
    };
    let ids = keyring.ids();
    let roles = ["writes and reads"]
        .into_iter()
        .chain(iter::repeat("reads"));
    let lines = ids.iter().zip(roles);
    Ok(lines
        .map(|(id, role)| format!("{place}: the key {id} {role}\n"))
        .collect())
}

fn from_state_dir(dir: &Path) -> Result<Keyring> {
    let path = dir.join(FILE);
    let failed = |error| {
        let problem = format!("the key file {} cannot be made or read", path.display());
        Error::new(ErrorKind::InvalidConfig, problem).with_source(error)
    };
    if !fs::exists(&path).map_err(failed)? {
        generate(dir, &path)?.map_err(failed)?;
    }
    let mode = fs::metadata(&path).map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "others can read the key file {}: make a new one, or take their rights with chmod 600",
                path.display()
            ),
        ));
    }
    Keyring::from_file(&path)
}

/// Of two processes that start at the same time one makes the key, and both use it: the file
/// appears whole or not at all.
fn generate(dir: &Path, path: &Path) -> Result<io::Result<()>> {
    let text = Key::generate()?.expose_base64();
    let draft = dir.join(format!("{FILE}.{}", process::id()));
    // Nobody else has the name of this process, except one of the same number that was interrupted.
    let clean = || fs::remove_file(&draft);
    let write = || {
        let _ = clean();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        writeln!(file, "{}", *text)?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != AlreadyExists => Err(error),
            _ => Ok(()),
        }
    };
    let written = write();
    let _ = clean();
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, thread};

    use super::*;

    #[test]
    fn the_key_of_the_first_start_is_the_key_of_the_second() {
        let dir = tempfile::tempdir().unwrap();
        let first = from_state_dir(dir.path()).unwrap();
        let second = from_state_dir(dir.path()).unwrap();
        assert_eq!(first.ids(), second.ids());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_the_owner_can_read_the_key() {
        let dir = tempfile::tempdir().unwrap();
        from_state_dir(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        from_state_dir(dir.path()).unwrap();
        let readable = fs::Permissions::from_mode(0o644);
        fs::set_permissions(dir.path().join(FILE), readable).unwrap();
        let error = from_state_dir(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn starts_at_the_same_time_agree_on_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        generate(dir.path(), &path).unwrap().unwrap();
        let first = from_state_dir(dir.path()).unwrap().ids();
        // The other process has seen no file, and is late.
        generate(dir.path(), &path).unwrap().unwrap();
        let ids = thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| from_state_dir(dir.path()).unwrap().ids()))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert!(ids.iter().all(|ids| *ids == first));
    }
}
