use std::sync::Arc;

use sessionkit::{Result, SessionStore};
use sessionkit_cookie::CookieStore;

use crate::{
    Opener,
    url::{Address, invalid},
};

pub(crate) fn open(address: Address, opener: &Opener) -> Result<Arc<dyn SessionStore>> {
    if !address.rest().is_empty() {
        return Err(invalid("nothing but options may follow `cookie:`"));
    }
    let options = address.options(&["signed_only"])?;
    let signed_only = options.parse("signed_only")?.unwrap_or(false);
    if opener.namespace_in(&options)?.is_some() {
        return Err(invalid(
            "the cookie store has no namespaces: give it a keyring with a scope",
        ));
    }
    let keyring = opener.keys().cloned().ok_or_else(|| {
        invalid("the cookie store needs the keys of the application: see `Opener::keyring`")
    })?;
    let store = if signed_only {
        CookieStore::signed_only(keyring)
    } else {
        CookieStore::new(keyring)
    };
    Ok(Arc::new(store.with_clock(opener.clock_or_system())))
}
