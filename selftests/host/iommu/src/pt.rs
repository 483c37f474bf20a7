// SPDX-License-Identifier: GPL-2.0

//! The pure files of page tables.

#[path = "../../../../rust/pt/host.rs"]
pub mod host;
#[path = "../../../../rust/pt/second_stage.rs"]
pub mod second_stage;
#[path = "../../../../rust/pt/walk.rs"]
pub mod walk;
