//! Names for addresses: `slurm://trainer` -> `tcp://10.0.0.7:2222`.
//!
//! Flow: an address -> the first resolver whose pattern matches -> its function -> an address, which may be
//! a name again. Runs at each attempt, on the thread that connects, so a function may block. Bound:
//! `MAX_STEPS` names in a row.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::connect::{BoxError, ResolveError};

/// A name may resolve to another name. A longer chain is a mistake.
const MAX_STEPS: usize = 8;

type Function = dyn Fn(&str) -> Result<String, BoxError> + Send + Sync;

/// One pattern and its function.
#[derive(Clone)]
pub(crate) struct Resolver {
    pattern: String,
    function: Arc<Function>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

impl Resolver {
    pub(crate) fn new(pattern: &str, function: Arc<Function>) -> Resolver {
        Resolver { pattern: pattern.to_owned(), function }
    }

    /// Returns the text that the `*` of the pattern matches, or the whole address if the pattern has none.
    /// Returns `None` if the pattern does not match.
    fn name<'a>(&self, address: &'a str) -> Option<&'a str> {
        match self.pattern.split_once('*') {
            None => (self.pattern == address).then_some(address),
            Some((before, after)) => address.strip_prefix(before)?.strip_suffix(after),
        }
    }

    fn ask(&self, address: &str, name: &str) -> Result<String, ResolveError> {
        let failed = |source| ResolveError::Failed { address: address.to_owned(), source };
        match catch_unwind(AssertUnwindSafe(|| (self.function)(name))) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(error)),
            // The panic hook has printed the panic.
            Err(_) => Err(failed("the resolver panicked".into())),
        }
    }
}

/// Returns true if any resolver matches `address`.
pub(crate) fn is_name(resolvers: &[Resolver], address: &str) -> bool {
    resolvers.iter().any(|resolver| resolver.name(address).is_some())
}

/// Resolves `address`. Returns it unchanged if no resolver matches.
pub(crate) fn resolve(resolvers: &[Resolver], address: &str) -> Result<String, ResolveError> {
    let mut chain = vec![address.to_owned()];
    loop {
        let current = &chain[chain.len() - 1];
        let answer = |resolver: &Resolver| resolver.name(current).map(|name| resolver.ask(current, name));
        let Some(answer) = resolvers.iter().find_map(answer) else { return Ok(current.clone()) };
        let answer = answer?;
        let looped = chain.contains(&answer) || chain.len() > MAX_STEPS;
        chain.push(answer);
        if looped {
            return Err(ResolveError::Loop { chain });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(pattern: &str, function: fn(&str) -> Result<String, BoxError>) -> Resolver {
        Resolver::new(pattern, Arc::new(function))
    }

    #[test]
    fn the_first_resolver_that_matches_is_asked() {
        let resolvers = [
            resolver("slurm://*", |name| Ok(format!("tcp://{name}.cluster:2222"))),
            resolver("slurm://gpu*", |_| Ok("never".into())),
            resolver("trainer", |name| Ok(format!("slurm://{name}"))),
            resolver("db://*.eu", |name| Ok(format!("tcp://{name}:1"))),
        ];
        let resolve = |address| resolve(&resolvers, address).unwrap();
        assert_eq!(resolve("slurm://gpu7"), "tcp://gpu7.cluster:2222");
        assert_eq!(resolve("trainer"), "tcp://trainer.cluster:2222");
        assert_eq!(resolve("tcp://host:1"), "tcp://host:1");
        assert_eq!(resolve("db://main.eu"), "tcp://main:1");
        assert_eq!(resolve("db://main.us"), "db://main.us");
        assert!(is_name(&resolvers, "trainer") && !is_name(&resolvers, "trainers"));
    }

    #[test]
    fn loops_failures_and_panics_are_errors() {
        let resolvers = [
            resolver("a", |_| Ok("b".into())),
            resolver("b", |_| Ok("a".into())),
            resolver("env", |_| Err("TRAINER is not set".into())),
            resolver("panic", |_| panic!("on purpose")),
            resolver("more*", |name| Ok(format!("more{name}x"))),
        ];
        let error = |address| resolve(&resolvers, address).unwrap_err().to_string();
        assert_eq!(error("a"), "names form a loop or a chain that is too long: a -> b -> a");
        assert_eq!(error("env"), "the resolver of env failed: TRAINER is not set");
        assert_eq!(error("panic"), "the resolver of panic failed: the resolver panicked");
        assert!(error("more").ends_with("morexxxxxxxxx"));
    }
}
