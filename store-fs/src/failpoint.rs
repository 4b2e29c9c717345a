//! A hook before each system call that changes something or waits, so that the tests can end the process,
//! fail the call or run another operation exactly there. Nothing of it is in a normal build.

#[cfg(not(test))]
#[expect(
    clippy::unnecessary_wraps,
    reason = "the build for the tests returns errors"
)]
#[inline]
pub(crate) fn reach(_step: &'static str) -> rustix::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use hooked::{reach, with_hook};

#[cfg(test)]
mod hooked {
    use std::cell::RefCell;

    type Hook = Box<dyn FnMut(&'static str) -> rustix::io::Result<()>>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Runs `work` with `hook` called before each step. Steps taken inside the hook are not hooked.
    pub(crate) fn with_hook<T>(
        hook: impl FnMut(&'static str) -> rustix::io::Result<()> + 'static,
        work: impl FnOnce() -> T,
    ) -> T {
        HOOK.set(Some(Box::new(hook)));
        let result = work();
        HOOK.set(None);
        result
    }

    pub(crate) fn reach(step: &'static str) -> rustix::io::Result<()> {
        let Some(mut hook) = HOOK.take() else {
            return Ok(());
        };
        let result = hook(step);
        HOOK.set(Some(hook));
        result
    }
}
