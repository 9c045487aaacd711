//! The functions that a user registers, by name.

use std::fmt;

use crate::api::functions::method::{IntoMethod, Method};
use crate::api::functions::name::MethodName;

/// Functions by name, for [`Server::run`](crate::Server::run) or [`start`](crate::Server::start).
///
/// ```
/// use teleport_server::Methods;
/// use teleport_server::wire::{Tree, TreeError, tree};
///
/// let methods = Methods::new()
///     .register("echo", |x: Tree| x)
///     .register("length", |text: String| text.len())
///     .register("add", |x: Tree| -> Result<Tree, TreeError> {
///         Ok(tree!({"result": x.field::<i64>("foo")? + x.field::<i64>("bar")?}))
///     });
/// ```
#[derive(Default)]
pub struct Methods {
    pub(crate) list: Vec<(String, Method)>,
}

impl Methods {
    /// Creates an empty list of methods.
    pub fn new() -> Methods {
        Methods::default()
    }

    /// Adds a function, or a [`Method`], under a name of 1 to 256 bytes. A name that is already used, or too
    /// long, is an error when the server starts.
    ///
    /// Under an [`Rpc<A, R>`](teleport_transport::wire::Rpc) the compiler checks that a function takes `A`
    /// and returns `R`, or a `Result` of it. A [`Method`] is not checked.
    ///
    /// ```
    /// use teleport_server::{Context, Method, Methods};
    /// use teleport_server::wire::{Array, ArrayError, Rpc, Tree};
    ///
    /// // In a crate that clients use, too.
    /// const LENGTH: Rpc<String, usize> = Rpc::new("length");
    /// const SUM: Rpc<Array, f32> = Rpc::new("sum");
    ///
    /// fn sum(items: Array, _: Context) -> Result<f32, ArrayError> {
    ///     Ok(items.as_slice::<f32>()?.iter().sum())
    /// }
    ///
    /// let methods = Methods::new().register(LENGTH, |text: String| text.len()).register(SUM, sum);
    /// let trees = Methods::new().register(LENGTH, Method::new(|x: Tree| x.payload_bytes()));
    /// ```
    ///
    /// A function of other types does not compile:
    /// ```compile_fail,E0277
    /// # use teleport_server::Methods;
    /// # use teleport_server::wire::Rpc;
    /// const LENGTH: Rpc<String, usize> = Rpc::new("length");
    /// let methods = Methods::new().register(LENGTH, |text: String| text.len() as i32);
    /// ```
    /// ```compile_fail,E0277
    /// # use teleport_server::Methods;
    /// # use teleport_server::wire::Rpc;
    /// # const LENGTH: Rpc<String, usize> = Rpc::new("length");
    /// let methods = Methods::new().register(LENGTH, |items: Vec<u8>| items.len());
    /// ```
    #[must_use]
    #[doc(alias = "bind")]
    pub fn register<Form>(mut self, name: impl MethodName<Form>, method: impl IntoMethod<Form>) -> Methods {
        self.list.push((name.into_name(), method.into_method()));
        self
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.list.iter().map(|(name, method)| (name, method))).finish()
    }
}
