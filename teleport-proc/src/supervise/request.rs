//! The request for a process, in memory that its owner writes. The reaper reads only the head.
//!
//! ```text
//! length of the head | head | argument
//! ```

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::codec::{BoxError, Reader, Writer};
use crate::supervise::ids::MARK_VARIABLE;
use crate::supervise::program::{Distance, Function, Identity};
use crate::sys;

/// All of a request except the argument.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) identity: Identity,
    pub(crate) function: Function,
    pub(crate) initializers: Vec<Distance>,
    pub(crate) name: String,
    /// The first argument of the program.
    pub(crate) program: CString,
    /// The time from SIGTERM to SIGKILL when the owner drops the process.
    pub(crate) grace: Duration,
    /// `NAME=value`
    pub(crate) environment: Vec<CString>,
}

/// Returns the first argument of this program.
pub(crate) fn program() -> CString {
    let name = std::env::args_os().next().unwrap_or_default();
    // No argument holds a zero byte.
    CString::new(name.as_bytes()).unwrap_or_default()
}

/// Returns the environment of this process with `changes`, and without the mark of this crate.
pub(crate) fn environment(changes: &[(String, String)]) -> Vec<CString> {
    let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    variables.remove(OsStr::new(MARK_VARIABLE));
    variables.extend(changes.iter().map(|(name, value)| (name.into(), value.into())));
    let text = |(name, value): (OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    // An environment cannot hold a variable with a zero byte.
    variables.into_iter().filter_map(|variable| CString::new(text(variable)).ok()).collect()
}

pub(crate) fn write(file: &File, head: &Head, argument: &[u8]) -> io::Result<()> {
    let mut writer = Writer::default();
    head.identity.0.iter().for_each(|number| writer.number(*number));
    writer.number(head.function.runner.0);
    writer.number(head.function.function.0);
    writer.number(head.initializers.len() as u64);
    head.initializers.iter().for_each(|initializer| writer.number(initializer.0));
    writer.bytes(head.name.as_bytes());
    writer.bytes(head.program.as_bytes());
    writer.number(head.grace.as_millis().try_into().unwrap_or(u64::MAX));
    writer.number(head.environment.len() as u64);
    head.environment.iter().for_each(|variable| writer.bytes(variable.as_bytes()));
    file.write_all_at(&(writer.0.len() as u64).to_le_bytes(), 0)?;
    file.write_all_at(&writer.0, 8)?;
    file.write_all_at(argument, 8 + writer.0.len() as u64)
}

pub(crate) fn read_head(file: &File) -> Result<Head, BoxError> {
    let bytes = sys::read_range(file, 8, head_bytes(file)?)?;
    let mut reader = Reader(&bytes);
    let identity = Identity([reader.number()?, reader.number()?, reader.number()?, reader.number()?]);
    let function = Function { runner: Distance(reader.number()?), function: Distance(reader.number()?) };
    let initializers =
        (0..reader.number()?).map(|_| reader.number().map(Distance)).collect::<Result<Vec<_>, _>>()?;
    let name = String::from_utf8(reader.bytes()?)?;
    let program = CString::new(reader.bytes()?)?;
    let grace = Duration::from_millis(reader.number()?);
    let count = reader.number()?;
    let environment =
        (0..count).map(|_| Ok(CString::new(reader.bytes()?)?)).collect::<Result<Vec<_>, BoxError>>()?;
    Ok(Head { identity, function, initializers, name, program, grace, environment })
}

pub(crate) fn read_argument(file: &File) -> Result<Vec<u8>, BoxError> {
    Ok(sys::read_range(file, 8 + head_bytes(file)?, u64::MAX)?)
}

fn head_bytes(file: &File) -> Result<u64, BoxError> {
    Reader(&sys::read_range(file, 0, 8)?).number()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        fn function(_: ()) {}
        fn initializer() {}
        let head = Head {
            identity: Identity::of_this().unwrap(),
            function: Function::of(function),
            initializers: vec![Distance::of(initializer)],
            name: "actor".into(),
            program: c"train".into(),
            grace: Duration::from_millis(1500),
            environment: environment(&[("A".into(), "b=c".into()), ("PATH".into(), "/nowhere".into())]),
        };
        assert!(head.environment.contains(&c"A=b=c".into()));
        assert_eq!(
            head.environment.iter().filter(|variable| variable.as_bytes().starts_with(b"PATH=")).count(),
            1
        );
        let file = sys::memory().unwrap();
        write(&file, &head, &[7; 1000]).unwrap();
        assert_eq!(read_head(&file).unwrap(), head);
        assert_eq!(read_argument(&file).unwrap(), [7; 1000]);
    }
}
