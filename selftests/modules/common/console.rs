// SPDX-License-Identifier: GPL-2.0

//! A device's file in debugfs: `/sys/kernel/debug/DRIVER-ADDRESS/cmd`.
//!
//! A line written to it is a command, reading it gives the answer to the last one. A
//! command that fails also fails the write; the answer is then "error" and its name.

use crate::words::Words;
use iommu::lease::Lease;
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    new_mutex,
    prelude::*,
    str::CString,
    sync::Mutex,
    types::ForLt,
    uaccess::UserSliceReader, //
};

/// The longest command, in bytes.
const LINE: usize = 128;

/// Data on which commands are run.
pub(crate) trait Commands {
    /// Runs the command `name` and returns its answer.
    fn run(&mut self, name: &str, words: Words<'_>) -> Result<CString>;
}

/// What the file needs.
#[pin_data]
struct Session<F: ForLt + 'static> {
    data: Lease<F>,
    #[pin]
    answer: Mutex<Option<CString>>,
}

impl<F: ForLt + 'static> Session<F>
where
    F::Of<'static>: Send,
    for<'dev> F::Of<'dev>: Commands,
{
    fn run(&self, reader: &mut UserSliceReader) -> Result {
        let mut line = [0; LINE];
        let len = reader.len();
        reader.read_slice(line.get_mut(..len).ok_or(EMSGSIZE)?)?;
        let text = core::str::from_utf8(&line[..len]).map_err(|_| EINVAL)?;
        let mut words = Words::new(text);
        let name = words.word()?;

        let reply = self.data.with(|data| data.run(name, words));
        let (answer, result) = match reply.unwrap_or(Err(ENODEV)) {
            Ok(answer) => (answer, Ok(())),
            Err(error) => (CString::try_from_fmt(fmt!("error {error:?}"))?, Err(error)),
        };
        *self.answer.lock() = Some(answer);
        result
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.answer.lock() {
            Some(answer) => f.write_fmt(fmt!("{}\n", &**answer)),
            None => Ok(()),
        }
    }
}

#[pin_data]
pub(crate) struct Console<F: ForLt + 'static> {
    #[pin]
    file: File<Session<F>>,
    /// Kept for as long as there is a file in it.
    _dir: Dir,
}

impl<F: ForLt + 'static> Console<F>
where
    F::Of<'static>: Send,
    for<'dev> F::Of<'dev>: Commands,
{
    /// Makes the file in the folder `name`.
    pub(crate) fn new(name: CString, data: Lease<F>) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let dir = Dir::new(&name);
            let session = try_pin_init!(Session {
                data,
                answer <- new_mutex!(None),
            });
            Ok(try_pin_init!(Self {
                _dir: dir.clone(),
                file <- dir.read_write_callback_file(
                    c"cmd",
                    session,
                    &Session::<F>::show,
                    &Session::<F>::run,
                ),
            }))
        })
    }

    /// Drops the data; commands fail from now on.
    #[allow(dead_code, reason = "not all drivers have to")]
    pub(crate) fn end(&self) {
        self.file.data.end();
    }
}
