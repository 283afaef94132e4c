//! What a hostile compiler does to a kernel as a whole, drawn from the seed and the kernel's
//! source.

use crate::common::Random;

/// The order in which terms of a sum are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// What is added first, then what is subtracted: Σa − 16·m.
    PositiveFirst,
    /// What is subtracted first: (−r − p) + x.
    NegativeFirst,
    /// Two terms at a time, drawn.
    Tree,
}

/// How a division is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Division {
    Exact,
    /// A product with a reciprocal, itself rounded.
    Reciprocal,
    /// The quotient, so many ulp off.
    Off(i32),
}

/// What is done to a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// Draws what differs within the kernel.
    pub seed: u64,
    pub order: Order,
    /// Of 8 sums or products that may be seen through, so many are.
    pub regroups: usize,
    /// Of 8 products with sums, so many are distributed.
    pub distributes: usize,
    /// Of 8 products in sums, so many are contracted.
    pub contracts: usize,
    /// Of 8 common factors, so many are taken out of a sum.
    pub factors: usize,
    pub division: Division,
    /// How many ulp off a root is.
    pub root_off: i32,
    pub flushes: bool,
    /// Whether no value of arithmetic is NaN or infinite.
    pub finite: bool,
}

impl Style {
    /// Nothing but what every style does: inlining and forwarding.
    pub const NONE: Self = Self {
        seed: 0,
        order: Order::Tree,
        regroups: 0,
        distributes: 0,
        contracts: 0,
        factors: 0,
        division: Division::Exact,
        root_off: 0,
        flushes: false,
        finite: false,
    };

    /// The same without some of what it does, by the names of fields: to find out which of it a
    /// test fails for.
    pub fn without(mut self, what: &str) -> Self {
        for name in what.split(',').filter(|name| !name.is_empty()) {
            match name {
                "order" => self.order = Self::NONE.order,
                "regroups" => self.regroups = 0,
                "distributes" => self.distributes = 0,
                "contracts" => self.contracts = 0,
                "factors" => self.factors = 0,
                "division" => self.division = Division::Exact,
                "root_off" => self.root_off = 0,
                "flushes" => self.flushes = false,
                "finite" => self.finite = false,
                other => panic!("a style has no {other}"),
            }
        }
        self
    }

    /// The style of a kernel.
    pub fn drawn(source: &str, seed: u64) -> Self {
        // FNV-1a, so that each kernel has a style of its own.
        let hash = source.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut random = Random::new(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let orders = [Order::PositiveFirst, Order::NegativeFirst, Order::Tree];
        // 2.5 ulp are allowed.
        let divisions = [
            Division::Exact,
            Division::Reciprocal,
            Division::Off(-2),
            Division::Off(-1),
            Division::Off(1),
            Division::Off(2),
        ];
        Self {
            order: orders[random.below(3)],
            regroups: [8, 8, 6][random.below(3)],
            distributes: [0, 4, 8][random.below(3)],
            contracts: [0, 4, 8][random.below(3)],
            factors: [0, 4][random.below(2)],
            division: divisions[random.below(6)],
            // inverseSqrt may be 2 ulp off, sqrt more.
            root_off: [0, -2, -1, 1, 2][random.below(5)],
            flushes: random.below(2) == 0,
            finite: true,
            seed: random.bits(),
        }
    }
}
