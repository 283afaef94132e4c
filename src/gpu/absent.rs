//! Replaces `gpu` without that feature: its names, as types without values.
//!
//! The crate's code for GPUs is still compiled, and is never reached.

use std::ops::Deref;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::error::{ArgumentError, Error, GpuError};
use crate::plan::DeviceCaps;
use crate::probe::Findings;

/// A result that a device is already working on.
pub(crate) type Pending<T> = BoxFuture<'static, Result<T, Error>>;

/// No GPU.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Gpu {}

/// No part of its memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BufferSlice {
    pub offset_bytes: u64,
    pub size_bytes: u64,
    pub is_shared: bool,
    none: Gpu,
}

/// No memory of a call.
#[derive(Debug)]
pub(crate) struct Lease(BufferSlice);

/// No memory of an application's calls.
#[derive(Debug)]
pub(crate) enum Memory {}

/// No watch over it.
#[derive(Debug)]
pub(crate) enum Watch {}

/// No recording.
pub(crate) enum Recorder {}

impl Deref for Lease {
    type Target = BufferSlice;

    fn deref(&self) -> &BufferSlice {
        &self.0
    }
}

impl Lease {
    pub fn retain(&self) {
        match self.none {}
    }
}

impl Watch {
    pub fn is_written(&self) -> bool {
        match *self {}
    }
}

impl BufferSlice {
    pub fn check_writable(&self) -> Result<(), ArgumentError> {
        match self.none {}
    }

    pub fn check_readable(&self) -> Result<(), ArgumentError> {
        match self.none {}
    }

    pub fn number(&self) -> u64 {
        match self.none {}
    }

    pub fn written_at(&self) -> u64 {
        match self.none {}
    }

    pub fn overlaps(&self, _: &Self) -> bool {
        match self.none {}
    }
}

impl Gpu {
    pub fn name(&self) -> &str {
        match *self {}
    }

    pub fn caps(&self) -> &DeviceCaps {
        match *self {}
    }

    pub fn findings(&self) -> Option<&Findings> {
        match *self {}
    }

    pub fn start_clock(&self) -> Result<(), GpuError> {
        match *self {}
    }

    pub fn take_time(&self, _: Duration) -> Pending<Duration> {
        match *self {}
    }

    pub fn wait(&self, _: Duration) -> Pending<()> {
        match *self {}
    }

    pub fn new_buffer(&self, _: u64, _: Option<&[u8]>) -> Result<BufferSlice, Error> {
        match *self {}
    }

    pub fn upload_uniform(&self, _: &[u32]) -> Result<BufferSlice, Error> {
        match *self {}
    }

    pub fn scratch_of(&self, _: Option<&Memory>, _: u64) -> Result<Lease, Error> {
        match *self {}
    }

    pub fn write(&self, _: &BufferSlice, _: &[u8]) -> Result<(), Error> {
        match *self {}
    }

    pub fn note_write(&self, _: &BufferSlice, _: u64) {
        match *self {}
    }

    pub fn watch(&self, _: &BufferSlice) -> Watch {
        match *self {}
    }

    pub fn submit_and_read(
        &self,
        _: &'static str,
        _: Duration,
        _: &BufferSlice,
        _: impl FnOnce(&mut Recorder),
    ) -> Pending<Vec<u8>> {
        match *self {}
    }
}
