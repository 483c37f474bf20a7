// SPDX-License-Identifier: GPL-2.0

//! Per-device policies: when unmapped addresses are invalidated.
//!
//! Three of them are the core's, as types of a group's default domain. The policy `lazy`, and `strict`
//! for a device whose group has a queue, lie above that as an *overlay*: the DMA API calls operations
//! of ours for the device ([`dma_ops`]), which map in a window ([`crate::lazy`]) or hand to the core.

pub(crate) mod change;
pub(crate) mod dma_ops;
pub(crate) mod group_type;
mod keep;
pub(crate) mod mapper;
pub mod name;
pub(crate) mod overlay;
mod scatter;
pub mod segments;
pub(crate) mod settings;
