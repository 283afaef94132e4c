//! What a call tells a kernel about every value: constants of its text, so that what they rule out is not compiled. What is
//! asked once per invocation is no constant, because every combination of them is a pipeline of its own.

/// What a layer has, how it ends, and what its tensors are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Constants {
    /// A residual is added before the activation, and is read where that is formed.
    pub residual: bool,
    /// There is an activation.
    pub activates: bool,
    /// The statistics depend on x; without, they are constants for the gradient.
    pub batch_statistics: bool,
    /// The values of a quad are of four channels; without, of one.
    pub four_channels: bool,
    /// A bit of the mask lies by the address of its value; without, a word holds the values of one invocation.
    pub mask_by_address: bool,
}

impl Constants {
    /// All with their names in the text.
    fn named(&mut self) -> [(&'static str, &mut bool); 5] {
        [
            ("ADDS_RESIDUAL", &mut self.residual),
            ("ACTIVATES", &mut self.activates),
            ("HAS_BATCH_STATISTICS", &mut self.batch_statistics),
            ("FOUR_CHANNELS", &mut self.four_channels),
            ("MASK_BY_ADDRESS", &mut self.mask_by_address),
        ]
    }

    /// Those that a text knows, all of them set.
    pub(super) fn all_of(text: &str) -> Self {
        let mut constants = Self::default();
        for (name, value) in constants.named() {
            *value = text.contains(name);
        }
        constants
    }

    /// A text behind the declarations of the constants that it knows.
    pub(super) fn declared_for(mut self, text: &str) -> String {
        let mut declared = String::new();
        for (name, value) in self.named() {
            if text.contains(name) {
                declared.push_str(&format!("const {name}: bool = {value};\n"));
            }
        }
        declared
    }
}
