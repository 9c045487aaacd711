//! The modules of a crate, as its source files declare them: their names, and the paths that they mention.
//!
//! Flow: [`Sources::read`] parses `lib.rs` and follows each `mod name;` to its file. Code that only tests
//! compile is left out. `resolve` finds the file that a path leads to. Paths inside of macro calls count
//! too: their tokens are searched for names with `::` between them.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, UseTree};

use crate::failure::Failure;

/// All files and modules of one crate. The first module is the crate's root.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) files: Vec<File>,
    pub(super) modules: Vec<Module>,
}

/// One source file.
#[derive(Debug)]
pub(super) struct File {
    /// From the folder of `lib.rs`: `link/reader.rs`.
    pub(super) path: PathBuf,
    /// Lines, without those that only tests compile.
    pub(super) lines: usize,
    /// Lines of items that are no re-exports.
    pub(super) implementation: Vec<(usize, &'static str)>,
}

/// One module: a file, or a `mod name { ... }` within one.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: String,
    /// The index of the file that holds it.
    pub(super) file: usize,
    pub(super) parent: Option<usize>,
    pub(super) children: Vec<usize>,
    /// The items that the module defines or imports, by name.
    pub(super) names: HashMap<String, Name>,
    /// The paths before `::*` of glob imports.
    pub(super) globs: Vec<Vec<String>>,
    pub(super) mentions: Vec<Mention>,
}

/// The meaning of a name in a module.
#[derive(Clone, Debug)]
pub(super) enum Name {
    /// An item of this module.
    Item,
    /// Another path, by `use`.
    Import(Vec<String>),
}

/// A path in the code of a module.
#[derive(Debug)]
pub(super) struct Mention {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

impl Sources {
    /// Parses the crate whose root is `lib.rs` in `folder`; `read` gives the text of a file.
    pub(super) fn read(
        folder: &Path,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Sources, Failure> {
        let mut sources = Sources::default();
        let mut pending = vec![(PathBuf::from("lib.rs"), String::new(), None)];
        while let Some((path, name, parent)) = pending.pop() {
            let (path, text) = match read(&folder.join(&path)) {
                // `mod name;` is name.rs or name/mod.rs.
                Err(source) if source.kind() == io::ErrorKind::NotFound => {
                    let path = path.with_extension("").join("mod.rs");
                    let text = read(&folder.join(&path)).map_err(Failure::file(&folder.join(&path)))?;
                    (path, text)
                }
                text => (path.clone(), text.map_err(Failure::file(&folder.join(&path)))?),
            };
            let parsed = syn::parse_file(&text).map_err(|source| Failure::Syntax {
                path: folder.join(&path),
                line: source.span().start().line,
                problem: source.to_string(),
            })?;
            let file = sources.files.len();
            let lines = text.trim_end().lines().count();
            sources.files.push(File { path: path.clone(), lines, implementation: Vec::new() });
            let module = sources.add(name, file, parent);
            let mut walk =
                Walk { sources: &mut sources, folder: folder_of(&path), module, found: Vec::new() };
            walk.visit_file(&parsed);
            pending.append(&mut walk.found);
        }
        Ok(sources)
    }

    /// The path of an item, from `crate`.
    fn path_of(&self, module: usize, item: &str) -> Vec<String> {
        let mut path = vec![item.to_owned()];
        let mut at = module;
        while let Some(parent) = self.modules[at].parent {
            path.push(self.modules[at].name.clone());
            at = parent;
        }
        path.push("crate".to_owned());
        path.reverse();
        path
    }

    fn add(&mut self, name: String, file: usize, parent: Option<usize>) -> usize {
        let module = self.modules.len();
        self.modules.push(Module {
            name,
            file,
            parent,
            children: Vec::new(),
            names: HashMap::new(),
            globs: Vec::new(),
            mentions: Vec::new(),
        });
        if let Some(parent) = parent {
            self.modules[parent].children.push(module);
        }
        module
    }
}

/// The folder that holds the files of the child modules of `file`.
fn folder_of(file: &Path) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default();
    let folder = file.parent().unwrap_or(Path::new(""));
    if stem == "lib" || stem == "mod" { folder.to_path_buf() } else { folder.join(stem) }
}

/// Walks one file and adds what it finds to the current module.
struct Walk<'a> {
    sources: &'a mut Sources,
    /// The folder for the files of the current module's children.
    folder: PathBuf,
    module: usize,
    /// Modules in files of their own: path, name and parent.
    found: Vec<(PathBuf, String, Option<usize>)>,
}

impl Walk<'_> {
    fn current(&mut self) -> &mut Module {
        &mut self.sources.modules[self.module]
    }

    fn mention(&mut self, path: Vec<String>, span: Span) {
        let line = span.start().line;
        self.current().mentions.push(Mention { path, line });
    }

    /// Takes the lines of an item that only tests compile from the file's count.
    fn skip(&mut self, item: &dyn Spanned) {
        let span = item.span();
        let lines = span.end().line + 1 - span.start().line;
        let file = self.sources.modules[self.module].file;
        self.sources.files[file].lines -= lines.min(self.sources.files[file].lines);
    }

    fn import(&mut self, tree: &UseTree, mut prefix: Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(&path.tree, prefix);
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, prefix.clone()));
            }
            UseTree::Glob(glob) => {
                self.current().globs.push(prefix.clone());
                prefix.push("*".to_owned());
                self.mention(prefix, glob.span());
            }
            UseTree::Name(leaf) => self.import_name(prefix, &leaf.ident, &leaf.ident),
            UseTree::Rename(leaf) => self.import_name(prefix, &leaf.ident, &leaf.rename),
        }
    }

    fn import_name(&mut self, mut path: Vec<String>, name: &syn::Ident, known_as: &syn::Ident) {
        if name != "self" {
            path.push(name.to_string());
        }
        let known_as = if known_as == "self" { path.last().cloned() } else { Some(known_as.to_string()) };
        self.mention(path.clone(), name.span());
        if let Some(known_as) = known_as {
            self.current().names.entry(known_as).or_insert(Name::Import(path));
        }
    }

    fn module(&mut self, item: &syn::ItemMod) {
        let name = item.ident.to_string();
        match &item.content {
            Some((_, items)) => {
                let file = self.current().file;
                let module = self.sources.add(name.clone(), file, Some(self.module));
                let outer = std::mem::replace(&mut self.module, module);
                self.folder.push(name);
                items.iter().for_each(|item| self.visit_item(item));
                self.folder.pop();
                self.module = outer;
            }
            None => {
                let mut paths = path_attributes(&item.attrs);
                if paths.is_empty() {
                    paths.push(format!("{name}.rs"));
                }
                let module = Some(self.module);
                self.found.extend(paths.iter().map(|path| (self.folder.join(path), name.clone(), module)));
            }
        }
    }

    /// Looks for paths in tokens that are not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut start, mut colons) = (Span::call_site(), 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if path.is_empty() || colons != 2 {
                        self.end_of_path(&mut path, start);
                        start = ident.span();
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.end_of_path(&mut path, start);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.end_of_path(&mut path, start);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>, start: Span) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.mention(path, start);
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (kind, name, attributes) = describe(item);
        if attributes.iter().any(is_for_tests) {
            return self.skip(item);
        }
        if let Some(kind) = kind {
            let line = name.map_or_else(|| item.span(), syn::Ident::span).start().line;
            let file = self.current().file;
            self.sources.files[file].implementation.push((line, kind));
        }
        if let Some(name) = name {
            self.current().names.insert(name.to_string(), Name::Item);
            if attributes.iter().any(|attribute| attribute.path().is_ident("macro_export")) {
                let path = self.sources.path_of(self.module, &name.to_string());
                self.sources.modules[0].names.insert(name.to_string(), Name::Import(path));
            }
        }
        match item {
            Item::Mod(item) => self.module(item),
            Item::Use(item) => self.import(&item.tree, Vec::new()),
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            syn::ImplItem::Macro(item) => &item.attrs,
            _ => return,
        };
        if attributes.iter().any(is_for_tests) {
            return self.skip(item);
        }
        visit::visit_impl_item(self, item);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if field.attrs.iter().any(is_for_tests) {
            return self.skip(field);
        }
        visit::visit_field(self, field);
    }

    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        let attributes: &[Attribute] = match statement {
            syn::Stmt::Local(local) => &local.attrs,
            syn::Stmt::Macro(call) => &call.attrs,
            syn::Stmt::Expr(syn::Expr::Block(block), _) => &block.attrs,
            _ => &[],
        };
        if attributes.iter().any(is_for_tests) {
            return self.skip(statement);
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.mention(names, path.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

/// Returns the kind, the name and the attributes of an item.
fn describe(item: &Item) -> (Option<&'static str>, Option<&syn::Ident>, &[Attribute]) {
    match item {
        Item::Const(item) => (Some("const"), Some(&item.ident), &item.attrs),
        Item::Enum(item) => (Some("enum"), Some(&item.ident), &item.attrs),
        Item::ExternCrate(item) => (None, None, &item.attrs),
        Item::Fn(item) => (Some("fn"), Some(&item.sig.ident), &item.attrs),
        Item::ForeignMod(item) => (Some("extern"), None, &item.attrs),
        Item::Impl(item) => (Some("impl"), None, &item.attrs),
        Item::Macro(item) => (Some("macro"), item.ident.as_ref(), &item.attrs),
        Item::Mod(item) => (None, None, &item.attrs),
        Item::Static(item) => (Some("static"), Some(&item.ident), &item.attrs),
        Item::Struct(item) => (Some("struct"), Some(&item.ident), &item.attrs),
        Item::Trait(item) => (Some("trait"), Some(&item.ident), &item.attrs),
        Item::TraitAlias(item) => (Some("trait"), Some(&item.ident), &item.attrs),
        Item::Type(item) => (Some("type"), Some(&item.ident), &item.attrs),
        Item::Union(item) => (Some("union"), Some(&item.ident), &item.attrs),
        Item::Use(item) => (None, None, &item.attrs),
        _ => (Some("code"), None, &[]),
    }
}

/// Returns true if the attribute leaves its item out of all builds but those of tests.
fn is_for_tests(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<Meta>().is_ok_and(|condition| needs_test(&condition))
        }
        _ => false,
    }
}

fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test") || path.is_ident("doctest"),
        Meta::List(list) if list.path.is_ident("all") => {
            let parts = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
            list.parse_args_with(parts).is_ok_and(|parts| parts.iter().any(needs_test))
        }
        _ => false,
    }
}

/// The values of `#[path = "..."]`, also within `cfg_attr`.
fn path_attributes(attributes: &[Attribute]) -> Vec<String> {
    attributes.iter().flat_map(|attribute| paths_in(&attribute.meta)).collect()
}

fn paths_in(meta: &Meta) -> Vec<String> {
    match meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => vec![text.value()],
            _ => Vec::new(),
        },
        Meta::List(list) if list.path.is_ident("cfg_attr") => {
            let parts = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
            list.parse_args_with(parts).into_iter().flatten().flat_map(|part| paths_in(&part)).collect()
        }
        _ => Vec::new(),
    }
}
