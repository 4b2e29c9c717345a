use std::{
    fs::{self, DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use percent_encoding::percent_decode_str;
use sessionkit::{Error, ErrorKind, Result, SessionStore};
use sessionkit_fs::FsOptions;

use crate::{
    Opener,
    url::{Address, invalid},
};

const OPTIONS: [&str; 4] = ["durability", "group_access", "namespace", "quota"];

/// The path in a URL of this scheme is no secret: the store's errors name it.
pub(crate) async fn open(address: Address, opener: &Opener) -> Result<Arc<dyn SessionStore>> {
    let mut path = path_in(address.rest())?;
    let options = address.options(&OPTIONS)?;
    let mut store = FsOptions::new().clock(opener.clock_or_system());
    if let Some(sync) = options.parse("durability")? {
        store = store.sync(sync);
    }
    if let Some(quota) = options.parse("quota")? {
        store = store.quota(quota);
    }
    let group_access = options.parse("group_access")?.unwrap_or(false);
    store = store.group_access(group_access);
    if let Some(namespace) = opener.namespace_in(&options)? {
        check_name(namespace)?;
        create(&path, group_access)?;
        path.push(namespace);
    }
    Ok(Arc::new(store.open(path).await?))
}

pub(crate) fn destroy(address: Address, opener: &Opener) -> Result<()> {
    let mut path = path_in(address.rest())?;
    let options = address.options(&OPTIONS)?;
    if let Some(namespace) = opener.namespace_in(&options)? {
        check_name(namespace)?;
        path.push(namespace);
    }
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::new(
            ErrorKind::Unavailable,
            format!("the directory {} cannot be removed", path.display()),
        )
        .with_source(error)),
        _ => Ok(()),
    }
}

/// The path of `fs:///path`, as RFC 8089 writes those of `file:`.
fn path_in(rest: &str) -> Result<PathBuf> {
    let path = rest
        .strip_prefix("//")
        .filter(|path| path.starts_with('/') && path.len() > 1)
        .ok_or_else(|| invalid("the URL of a session directory is `fs:///` and its path"))?;
    let path = percent_decode_str(path)
        .decode_utf8()
        .ok()
        .filter(|path| !path.contains('\0'))
        .ok_or_else(|| invalid("the path in the store's URL is no text"))?;
    Ok(PathBuf::from(&*path))
}

fn check_name(namespace: &str) -> Result<()> {
    match is_directory_name(namespace) {
        true => Ok(()),
        false => Err(invalid(
            "a namespace in a directory is 1 to 128 letters, digits, `_` and `-`, and no name of \
             the store's own",
        )),
    }
}

/// A name that cannot leave the directory, and that a store in the directory itself does not use.
fn is_directory_name(namespace: &str) -> bool {
    let is_shard = namespace.len() == 2 && u8::from_str_radix(namespace, 16).is_ok();
    namespace.len() <= 128
        && !is_shard
        && !["subjects", "usage"].contains(&namespace)
        && namespace
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Makes the directory that holds the namespaces.
fn create(path: &Path, group_access: bool) -> Result<()> {
    let created = DirBuilder::new().mode(0o700).create(path);
    let created = match group_access {
        // Whatever the umask says.
        true => created.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o2770))),
        false => created,
    };
    match created {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "the directory {} of the namespaces cannot be created",
                path.display()
            ),
        )
        .with_source(error)),
        _ => Ok(()),
    }
}
