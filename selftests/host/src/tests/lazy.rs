// SPDX-License-Identifier: GPL-2.0

//! The lazy window: against a model, by several threads, and every order of a few (`model`).

mod again;
mod fit;
mod format;
mod host;
mod model;
mod random;
mod threads;

use host::{entry, Host, TimedOut};
