//! The methods of a running server, by name and by number.
//!
//! Flow: [`Registry::build`] checks all names once, at the start -> [`Registry::find`] for each call. Never
//! changes after the start. Bound: names have 1 to 256 bytes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use teleport_transport::wire::{ErrorKind, MAX_METHOD_BYTES, QuickHash, Ran, RemoteError};

use crate::api::batch_options::BatchProblem;
use crate::api::error::ServeError;
use crate::api::functions::method::{Body, Method, RunsOn};
use crate::api::functions::methods::Methods;
use crate::batch::plan::policy::BatchPolicy;
use crate::call::route::{MethodInfo, Route};
use crate::call::run_time::RunTime;

/// A pool of workers that the methods need.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PoolPlan {
    /// The method that the pool belongs to; `None` for the shared pool.
    pub(crate) method: Option<Arc<str>>,
    pub(crate) workers: usize,
    /// For each batched method of the pool: whether its batches leave logs for a done function.
    pub(crate) batched: Vec<bool>,
}

/// A batched method.
#[derive(Debug)]
pub(crate) struct BatchPlan {
    pub(crate) method: Arc<str>,
    pub(crate) policy: BatchPolicy,
    pub(crate) is_listed: bool,
    /// The pool of the method, and its number among the batched methods of that pool.
    pub(crate) pool: usize,
    pub(crate) number: usize,
}

/// All methods of a running server.
pub(crate) struct Registry {
    /// The callers have them too, so that a call needs no reference of its own.
    pub(crate) methods: Arc<Vec<MethodInfo>>,
    /// In the same order.
    functions: Vec<Body>,
    slots: HashMap<Arc<str>, u32, QuickHash>,
    pub(crate) pools: Vec<PoolPlan>,
    pub(crate) batches: Vec<BatchPlan>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("methods", &self.methods).finish_non_exhaustive()
    }
}

impl Registry {
    /// Checks names and options. `done` holds the names that have a done function, by its number.
    pub(crate) fn build(
        methods: Methods,
        shared_workers: usize,
        done: &[String],
    ) -> Result<Registry, ServeError> {
        let mut registry = Registry {
            methods: Arc::default(),
            functions: Vec::new(),
            slots: HashMap::default(),
            pools: Vec::new(),
            batches: Vec::new(),
        };
        for (name, method) in methods.list {
            registry.add(name, method, shared_workers, done)?;
        }
        registry.check_done(done)?;
        Ok(registry)
    }

    fn add(
        &mut self,
        name: String,
        method: Method,
        shared_workers: usize,
        done: &[String],
    ) -> Result<(), ServeError> {
        if name.is_empty() || name.len() > MAX_METHOD_BYTES {
            return Err(ServeError::MethodName { bytes: name.len(), name, max_bytes: MAX_METHOD_BYTES });
        }
        if method.runs_on == RunsOn::Inline && method.has_workers {
            return Err(ServeError::InlineWithWorkers { name });
        }
        let done = done.iter().position(|done| *done == name);
        if done.is_some() && !method.logged {
            return Err(ServeError::NotLogged { name });
        }
        let name: Arc<str> = name.into();
        let slot = self.methods.len() as u32;
        if self.slots.insert(name.clone(), slot).is_some() {
            return Err(ServeError::DuplicateMethod { name: name.to_string() });
        }
        let mut route = self.route(&name, method.runs_on, shared_workers);
        if let Some(batch) = method.batch {
            let is_listed = matches!(method.function, Body::List(_));
            let checked = batch.check().and_then(|plan| match route {
                Route::Pool(pool) => Ok((plan, pool)),
                Route::Inline | Route::Batch(_) => Err(BatchProblem::Inline),
            });
            let (plan, pool) =
                checked.map_err(|problem| ServeError::Batch { name: name.to_string(), problem })?;
            route = self.batch(&name, plan, is_listed, pool, done.is_some());
        }
        self.functions.push(method.function);
        let methods = Arc::get_mut(&mut self.methods).expect("a registry is shared once it is built");
        methods.push(MethodInfo { name, slot, route, done, run_time: RunTime::unknown() });
        Ok(())
    }

    fn route(&mut self, name: &Arc<str>, runs_on: RunsOn, shared_workers: usize) -> Route {
        let plan = match runs_on {
            RunsOn::Inline => return Route::Inline,
            RunsOn::Shared => match self.pools.iter().position(|pool| pool.method.is_none()) {
                Some(shared) => return Route::Pool(shared),
                None => PoolPlan { method: None, workers: shared_workers, batched: Vec::new() },
            },
            RunsOn::Own { workers } => PoolPlan { method: Some(name.clone()), workers, batched: Vec::new() },
        };
        self.pools.push(plan);
        Route::Pool(self.pools.len() - 1)
    }

    fn batch(
        &mut self,
        name: &Arc<str>,
        policy: BatchPolicy,
        is_listed: bool,
        pool: usize,
        has_done: bool,
    ) -> Route {
        let batched = &mut self.pools[pool].batched;
        batched.push(has_done);
        let (method, number) = (name.clone(), batched.len() - 1);
        self.batches.push(BatchPlan { method, policy, is_listed, pool, number });
        Route::Batch(self.batches.len() - 1)
    }

    fn check_done(&self, done: &[String]) -> Result<(), ServeError> {
        for (index, name) in done.iter().enumerate() {
            if done[..index].contains(name) {
                return Err(ServeError::DuplicateDone { name: name.clone() });
            }
            if !self.slots.contains_key(name.as_str()) {
                return Err(ServeError::DoneWithoutMethod { name: name.clone() });
            }
        }
        Ok(())
    }

    /// Returns the number of the method with this name.
    ///
    /// # Errors
    /// Fails if there is none, with similar names.
    pub(crate) fn find(&self, name: &str) -> Result<u32, RemoteError> {
        self.slots.get(name).copied().ok_or_else(|| {
            let text = format!("there is no method {name:?}; {}", self.others(name));
            RemoteError::new(ErrorKind::UnknownMethod, Ran::No, text)
        })
    }

    /// Returns the method with this number, which [`find`](Registry::find) returned.
    pub(crate) fn method(&self, slot: u32) -> Option<&MethodInfo> {
        self.methods.get(slot as usize)
    }

    /// Returns the function of a method.
    pub(crate) fn function(&self, method: &MethodInfo) -> &Body {
        &self.functions[method.slot as usize]
    }

    /// Returns the number of workers of all pools whose calls may leave logs for a done function.
    pub(crate) fn logging_workers(&self) -> usize {
        let runs_on = |method: &MethodInfo| match method.route {
            Route::Inline => None,
            Route::Pool(pool) => Some(pool),
            Route::Batch(batch) => Some(self.batches[batch].pool),
        };
        let logs =
            |pool| self.methods.iter().any(|method| method.done.is_some() && runs_on(method) == Some(pool));
        self.pools.iter().enumerate().filter(|(index, _)| logs(*index)).map(|(_, plan)| plan.workers).sum()
    }

    /// Returns the number of a method's batcher; `None` if there is no such method, or it is not batched.
    pub(crate) fn batcher(&self, name: &str) -> Option<usize> {
        match self.method(*self.slots.get(name)?)?.route {
            Route::Batch(batcher) => Some(batcher),
            Route::Inline | Route::Pool(_) => None,
        }
    }

    /// Returns a hint about the methods that a caller may have meant.
    fn others(&self, name: &str) -> String {
        let names = || self.methods.iter().map(|method| &*method.name).take(MAX_NAMES_COMPARED);
        let close: Vec<&str> = names().filter(|known| is_close(known, name)).take(MAX_NAMES_TOLD).collect();
        match (close.is_empty(), self.methods.len()) {
            (false, _) => format!("did the caller mean {}?", quoted(&close)),
            (true, 0) => "the server has none".to_owned(),
            (true, count) => {
                let some: Vec<&str> = names().take(MAX_NAMES_TOLD).collect();
                let more = if count > some.len() { ", …" } else { "" };
                format!("the server has {}{more}", quoted(&some))
            }
        }
    }
}

/// The most names in an error text.
const MAX_NAMES_TOLD: usize = 8;

/// At most this many names, of at most this length, are compared, so that a call of an unknown method costs
/// little.
const MAX_NAMES_COMPARED: usize = 64;
const MAX_COMPARED_BYTES: usize = 32;

/// Names that differ by more edits are not similar.
const MAX_EDITS: usize = 2;

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// Returns true if two names differ only by case, or by one or two typing errors.
fn is_close(known: &str, name: &str) -> bool {
    let (known, name) = (known.as_bytes(), name.as_bytes());
    if known.eq_ignore_ascii_case(name) {
        return true;
    }
    let longest = known.len().max(name.len());
    // A short name is a few edits away from every other name.
    longest <= MAX_COMPARED_BYTES && edits(known, name) <= MAX_EDITS.min(longest / 3)
}

/// Returns how many insertions, removals and replacements of a byte lead from one name to the other.
fn edits(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, byte) in from.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (index, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(byte != other);
            diagonal = row[index + 1];
            row[index + 1] = replaced.min(row[index] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use teleport_transport::wire::Tree;

    use super::*;
    use crate::api::batch_options::Batch;

    fn registry(methods: Methods, done: &[&str]) -> Result<Registry, ServeError> {
        Registry::build(methods, 3, &done.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn echo(x: Tree) -> Tree {
        x
    }

    fn logged(x: Tree) -> (Tree, Tree) {
        (x.clone(), x)
    }

    #[test]
    fn names_are_checked() {
        let twice = Methods::new().register("a", echo).register("a", echo);
        assert!(matches!(registry(twice, &[]), Err(ServeError::DuplicateMethod { name }) if name == "a"));
        let empty = Methods::new().register("", echo);
        assert!(matches!(registry(empty, &[]), Err(ServeError::MethodName { bytes: 0, .. })));
        let long = Methods::new().register("x".repeat(257), echo);
        assert!(matches!(registry(long, &[]), Err(ServeError::MethodName { bytes: 257, .. })));
        let inline = Methods::new().register("a", Method::inline(echo).workers(2));
        assert!(matches!(registry(inline, &[]), Err(ServeError::InlineWithWorkers { .. })));
    }

    #[test]
    fn done_functions_need_a_logged_method() {
        let plain = || Methods::new().register("a", echo);
        assert!(matches!(registry(plain(), &["a"]), Err(ServeError::NotLogged { .. })));
        assert!(matches!(registry(plain(), &["b"]), Err(ServeError::DoneWithoutMethod { .. })));
        let step = || Methods::new().register("a", Method::logged(logged));
        assert!(matches!(registry(step(), &["a", "a"]), Err(ServeError::DuplicateDone { .. })));
        let registry = registry(step(), &["a"]).unwrap();
        assert_eq!(registry.method(0).unwrap().done, Some(0));
        assert_eq!(registry.logging_workers(), 3);
    }

    #[test]
    fn pools_are_made_where_they_are_used() {
        let methods = Methods::new()
            .register("inline", Method::inline(echo))
            .register("own", Method::new(echo).workers(0))
            .register("one", echo)
            .register("two", echo);
        let registry = registry(methods, &[]).unwrap();
        let routes: Vec<Route> = (0..4).map(|slot| registry.method(slot).unwrap().route).collect();
        assert_eq!(routes, [Route::Inline, Route::Pool(0), Route::Pool(1), Route::Pool(1)]);
        let own = PoolPlan { method: Some("own".into()), workers: 1, batched: Vec::new() };
        assert_eq!(registry.pools, [own, PoolPlan { method: None, workers: 3, batched: Vec::new() }]);
        assert_eq!(registry.logging_workers(), 0);
    }

    #[test]
    fn batches_are_checked_and_run_on_a_pool() {
        let batched = |batch: Batch| Methods::new().register("a", Method::batched(batch, echo));
        let error = registry(batched(Batch::up_to(0)), &[]).unwrap_err();
        assert_eq!(error.to_string(), "method \"a\": a batch of 0 calls: it must have 1 to 65536");
        let inline = Methods::new().register("a", Method::inline(echo).batch(Batch::up_to(2)));
        assert!(matches!(
            registry(inline, &[]),
            Err(ServeError::Batch { problem: BatchProblem::Inline, .. })
        ));
        let methods = Methods::new()
            .register("own", Method::batched(Batch::exact(2), echo).workers(2))
            .register("list", Method::listed(Batch::up_to(2), |calls: Vec<u64>| calls))
            .register("step", Method::logged(logged).batch(Batch::up_to(4)));
        let registry = registry(methods, &["step"]).unwrap();
        let batches = registry.batches.iter().map(|batch| (batch.is_listed, batch.pool, batch.number));
        assert_eq!(batches.collect::<Vec<_>>(), [(false, 0, 0), (true, 1, 0), (false, 1, 1)]);
        assert_eq!((&registry.pools[1].batched, registry.logging_workers()), (&vec![false, true], 3));
        assert_eq!((registry.batcher("step"), registry.batcher("no")), (Some(2), None));
    }

    #[test]
    fn unknown_names_are_answered_with_likely_ones() {
        let methods = Methods::new().register("observe", echo).register("act", echo);
        let registry = registry(methods, &[]).unwrap();
        assert_eq!(registry.find("act"), Ok(1));
        let text = |name| registry.find(name).unwrap_err().message;
        assert_eq!(text("Act"), "there is no method \"Act\"; did the caller mean \"act\"?");
        assert_eq!(text("obzerve"), "there is no method \"obzerve\"; did the caller mean \"observe\"?");
        assert_eq!(text("sum"), "there is no method \"sum\"; the server has \"observe\", \"act\"");
        assert!(text(&"é".repeat(128)).ends_with("the server has \"observe\", \"act\""));
        let none = super::tests::registry(Methods::new(), &[]).unwrap();
        assert_eq!(none.find("a").unwrap_err().message, "there is no method \"a\"; the server has none");
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits(b"kitten", b"sitting"), 3);
        assert_eq!(edits(b"", b"abc"), 3);
        assert_eq!(edits(b"abc", b""), 3);
        assert_eq!(edits(b"abc", b"abc"), 0);
    }
}
