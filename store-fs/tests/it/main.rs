//! The filesystem store from outside; the contract itself is tested by `conformance.rs`.

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod group;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
