// SPDX-License-Identifier: GPL-2.0

//! The pure files of the lazy window.

#[path = "../../../../rust/lazy/clock.rs"]
pub mod clock;
#[path = "../../../../rust/lazy/ending.rs"]
pub mod ending;
#[path = "../../../../rust/lazy/fit.rs"]
pub mod fit;
#[path = "../../../../rust/lazy/format.rs"]
pub mod format;
#[path = "../../../../rust/lazy/kept.rs"]
pub mod kept;
#[path = "../../../../rust/lazy/leaves.rs"]
pub mod leaves;
#[path = "../../../../rust/lazy/recent.rs"]
pub mod recent;
#[path = "../../../../rust/lazy/window.rs"]
pub mod window;
#[path = "../../../../rust/lazy/word.rs"]
pub mod word;
