//! Burn's `Module`, implemented by Burn's layer within: visitors, stores and adapters see a
//! `BatchNorm`.

use std::fmt;

use burn::module::{
    Content, Devices, DisplaySettings, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor,
};
use burn::tensor::Device;

use super::{Normalization, Scope};
use crate::activation::Activation;

impl<S: Scope> Module for Normalization<S> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.norm.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self { norm: self.norm.fork(device), ..self }
    }

    fn to_device(self, device: &Device) -> Self {
        Self { norm: self.norm.to_device(device), ..self }
    }

    fn train(self) -> Self {
        Self { norm: self.norm.train(), ..self }
    }

    fn valid(&self) -> Self {
        Self { norm: self.norm.valid(), ..self.clone() }
    }

    fn materialize(self) -> Self {
        Self { norm: self.norm.materialize(), ..self }
    }

    fn num_params(&self) -> usize {
        Module::num_params(&self.norm)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.norm.visit(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        Self { norm: self.norm.map(mapper), ..self }
    }
}

impl<S: Scope> ModuleDisplayDefault for Normalization<S> {
    fn content(&self, content: Content) -> Option<Content> {
        content.set_top_level_type(S::NAME).optional()
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}

impl<S: Scope> fmt::Display for Normalization<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format(DisplaySettings::default()))
    }
}

impl<S: Scope> ModuleDisplay for Normalization<S> {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = self.norm.custom_content(content.set_top_level_type(S::NAME))?;
        match self.activation {
            Activation::None => content,
            activation => content.add_debug_attribute("activation", &activation),
        }
        .optional()
    }
}
