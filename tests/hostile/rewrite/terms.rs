//! A float as a sum of terms, each a coefficient times powers of what is not looked through. Equal
//! terms are one term, and what cancels is gone.

use super::render::Rewrite;
use super::views::{Made, View};

/// More terms than these are not taken apart.
const MOST_TERMS: usize = 40;

/// A factor and twice its exponent: a root has an odd one.
pub type Factor = (View, i32);

/// A coefficient times factors, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub coefficient: f64,
    pub factors: Vec<Factor>,
}

impl Term {
    fn constant(coefficient: f64) -> Self {
        Self { coefficient, factors: Vec::new() }
    }

    fn of(view: View, twice_exponent: i32) -> Self {
        Self { coefficient: 1.0, factors: vec![(view, twice_exponent)] }
    }

    fn times(&self, other: &Self) -> Self {
        let mut factors = [&self.factors[..], &other.factors[..]].concat();
        factors.sort_by(|a, b| a.0.0.index().cmp(&b.0.0.index()).then(a.0.1.cmp(&b.0.1)));
        let mut merged: Vec<Factor> = Vec::new();
        for (view, exponent) in factors {
            match merged.last_mut().filter(|last| last.0 == view) {
                Some(last) => last.1 += exponent,
                None => merged.push((view, exponent)),
            }
        }
        merged.retain(|factor| factor.1 != 0);
        Self { coefficient: self.coefficient * other.coefficient, factors: merged }
    }

    fn inverse(&self) -> Self {
        let factors =
            self.factors.iter().map(|(view, exponent)| (view.clone(), -exponent)).collect();
        Self { coefficient: 1.0 / self.coefficient, factors }
    }

    fn has(&self, view: &View) -> bool {
        self.factors.iter().any(|factor| factor.0 == *view)
    }
}

/// The sum of two lists of terms.
fn plus(mut terms: Vec<Term>, more: Vec<Term>, sign: f64) -> Vec<Term> {
    for term in more {
        match terms.iter_mut().find(|other| other.factors == term.factors) {
            Some(other) => other.coefficient += sign * term.coefficient,
            None => terms.push(Term { coefficient: sign * term.coefficient, ..term }),
        }
    }
    terms.retain(|term| term.coefficient != 0.0);
    terms
}

impl Rewrite<'_> {
    /// The terms of a float that is computed: one step is always taken, others as drawn.
    pub(super) fn terms(&mut self, view: &View) -> Vec<Term> {
        let whole = || vec![Term::of(view.clone(), 2)];
        let terms = match self.source.made(view) {
            Made::Constant(value) => plus(Vec::new(), vec![Term::constant(value)], 1.0),
            Made::Add(a, b) => {
                let a = self.seen(a);
                let b = self.seen(b);
                plus(a, b, 1.0)
            }
            Made::Subtract(a, b) => {
                let a = self.seen(a);
                let b = self.seen(b);
                plus(a, b, -1.0)
            }
            Made::Negate(a) => plus(Vec::new(), self.seen(a), -1.0),
            Made::Multiply(a, b) => self.product(a, b, false),
            Made::Divide(a, b) => self.product(a, b, true),
            Made::Fma(a, b, c) => {
                let product = self.product(a, b, false);
                let c = self.seen(c);
                plus(product, c, 1.0)
            }
            Made::Sqrt(a) => vec![Term::of(self.source.followed(a), 1)],
            Made::InverseSqrt(a) => vec![Term::of(self.source.followed(a), -1)],
            Made::Opaque => whole(),
        };
        let is_bad =
            |term: &Term| !term.coefficient.is_finite() || (term.coefficient as f32) == 0.0;
        if terms.len() > MOST_TERMS || terms.iter().any(is_bad) { whole() } else { terms }
    }

    /// The terms of an operand, where it is seen through.
    fn seen(&mut self, view: View) -> Vec<Term> {
        let view = self.source.followed(view);
        let is_constant = matches!(self.source.made(&view), Made::Constant(_));
        if is_constant || self.draws(self.style.regroups) {
            self.terms(&view)
        } else {
            vec![Term::of(view, 2)]
        }
    }

    fn product(&mut self, a: View, b: View, divides: bool) -> Vec<Term> {
        let [a, b] = [a, b].map(|view| self.source.followed(view));
        let [mut left, mut right] = [self.seen(a.clone()), self.seen(b.clone())];
        // A sum is one factor, unless it is distributed, and where that cancels a root of it.
        let cancels = |terms: &[Term], view: &View| matches!(terms, [term] if term.has(view));
        if left.len() > 1 && (cancels(&right, &a) || !self.draws(self.style.distributes)) {
            left = vec![Term::of(a.clone(), 2)];
        }
        if right.len() > 1 && (divides || cancels(&left, &b) || !self.draws(self.style.distributes))
        {
            right = vec![Term::of(b, 2)];
        }
        if left.len() * right.len() > MOST_TERMS {
            left = vec![Term::of(a, 2)];
        }
        if divides && right.is_empty() {
            return vec![Term::constant(f64::NAN)];
        }
        let mut terms = Vec::new();
        for one in &left {
            let by =
                |other: &Term| if divides { one.times(&other.inverse()) } else { one.times(other) };
            terms = plus(terms, right.iter().map(by).collect(), 1.0);
        }
        terms
    }
}
