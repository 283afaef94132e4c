//! Floats written anew from their terms, in an order and an association that are drawn.

use std::collections::HashMap;

use naga::{BinaryOperator, Expression, Handle, LocalVariable, MathFunction, Type};

use super::build::Builder;
use super::style::{Division, Order, Style};
use super::terms::{Factor, Term};
use super::views::{Made, Source, View};
use crate::common::Random;

/// A function that is being rewritten.
pub struct Rewrite<'a> {
    pub(super) source: Source<'a>,
    pub(super) style: Style,
    pub(super) out: Builder,
    pub(super) random: Random,
    /// New expressions of whole ones and of components, by scope.
    pub(super) values: Vec<HashMap<View, Handle<Expression>>>,
    /// What is stored in every local variable.
    pub(super) stores: HashMap<Handle<LocalVariable>, Vec<Stored>>,
    /// The types of vectors and matrices of f32 and bool.
    pub(super) types: HashMap<naga::TypeInner, Handle<Type>>,
}

/// Where in a variable something is stored, if that is constant, and what.
pub(super) type Stored = (Option<Vec<u32>>, Handle<Expression>);

/// A part of a sum.
#[derive(Clone, Copy)]
struct Summand {
    value: Handle<Expression>,
    /// What it is still to be multiplied with.
    by: Option<Handle<Expression>>,
    is_negative: bool,
}

impl Rewrite<'_> {
    /// True for `of_eight` of eight times.
    pub(super) fn draws(&mut self, of_eight: usize) -> bool {
        self.random.below(8) < of_eight
    }

    pub(super) fn remembered(&self, view: &View) -> Option<Handle<Expression>> {
        self.values.iter().rev().find_map(|scope| scope.get(view).copied())
    }

    pub(super) fn remember(&mut self, view: View, value: Handle<Expression>) -> Handle<Expression> {
        self.values.last_mut().expect("a scope").insert(view, value);
        value
    }

    /// The new expression of a component of f32.
    pub(super) fn component(&mut self, view: View) -> Handle<Expression> {
        let view = self.source.followed(view);
        if let Some(value) = self.remembered(&view) {
            return value;
        }
        let value = match self.source.made(&view) {
            Made::Constant(value) => self.literal(value as f32),
            Made::Opaque => {
                let mut value = self.value(view.0);
                for &index in &view.1 {
                    value = self.out.pure(Expression::AccessIndex { base: value, index });
                }
                value
            }
            made => {
                let terms = self.terms(&view);
                match &terms[..] {
                    // Too many terms: as it stands.
                    [term] if term.factors == [(view.clone(), 2)] => self.as_it_stands(made),
                    _ => {
                        let value = self.sum(terms);
                        self.flushed(value)
                    }
                }
            }
        };
        self.remember(view, value)
    }

    fn as_it_stands(&mut self, made: Made) -> Handle<Expression> {
        let (op, a, b) = match made {
            Made::Add(a, b) => (BinaryOperator::Add, a, b),
            Made::Subtract(a, b) => (BinaryOperator::Subtract, a, b),
            Made::Multiply(a, b) => (BinaryOperator::Multiply, a, b),
            Made::Divide(a, b) => (BinaryOperator::Divide, a, b),
            Made::Negate(a) => {
                let a = self.component(a);
                return self.negated(a);
            }
            other => panic!("{other:?} is one term"),
        };
        let [a, b] = [a, b].map(|view| self.component(view));
        self.binary(op, a, b)
    }

    fn sum(&mut self, mut terms: Vec<Term>) -> Handle<Expression> {
        let mut summands = Vec::new();
        if terms.len() > 2 && self.draws(self.style.factors) {
            summands.extend(self.factored(&mut terms));
        }
        for term in terms {
            summands.push(self.summand(term));
        }
        match self.style.order {
            Order::PositiveFirst => summands.sort_by_key(|summand| summand.is_negative),
            Order::NegativeFirst => summands.sort_by_key(|summand| !summand.is_negative),
            Order::Tree => {}
        }
        while summands.len() > 1 {
            let at = match self.style.order {
                Order::Tree => self.random.below(summands.len()),
                _ => 0,
            };
            let one = summands.remove(at);
            let at =
                if self.style.order == Order::Tree { self.random.below(summands.len()) } else { 0 };
            summands[at] = self.added(one, summands[at]);
        }
        match summands.pop() {
            None => self.literal(0.0),
            Some(summand) => {
                let value = self.multiplied(summand);
                if summand.is_negative { self.negated(value) } else { value }
            }
        }
    }

    /// Terms with a common factor as one summand, where there are such.
    fn factored(&mut self, terms: &mut Vec<Term>) -> Option<Summand> {
        let has = |term: &Term, factor: &Factor| term.factors.contains(factor);
        let shared: Vec<Factor> = terms
            .iter()
            .flat_map(|term| term.factors.clone())
            .filter(|factor| {
                factor.1 == 2 && terms.iter().filter(|term| has(term, factor)).count() > 1
            })
            .collect();
        let factor = shared.get(self.random.below(shared.len().max(1)))?.clone();
        let (mut with, without): (Vec<Term>, Vec<Term>) =
            terms.drain(..).partition(|term| has(term, &factor));
        *terms = without;
        with.iter_mut().for_each(|term| term.factors.retain(|other| *other != factor));
        let value = self.sum(with);
        let by = self.component(factor.0);
        Some(Summand { value, by: Some(by), is_negative: false })
    }

    fn summand(&mut self, term: Term) -> Summand {
        let is_negative = term.coefficient < 0.0;
        let coefficient = term.coefficient.abs() as f32;
        let [mut above, mut below] = [Vec::new(), Vec::new()];
        for (view, twice) in term.factors {
            let value = self.component(view);
            let side = if twice > 0 { &mut above } else { &mut below };
            side.extend(std::iter::repeat_n(value, (twice.abs() / 2) as usize));
            if twice % 2 != 0 {
                let root = self.math(MathFunction::Sqrt, value);
                let root = self.off(root, self.style.root_off);
                if twice > 0 { above.push(root) } else { below.push(root) }
            }
        }
        if coefficient != 1.0 {
            let coefficient = self.literal(coefficient);
            above.push(coefficient);
        }
        let last = if above.len() > 1 {
            Some(above.swap_remove(self.random.below(above.len())))
        } else {
            None
        };
        let above = above.into_iter().reduce(|a, b| self.binary(BinaryOperator::Multiply, a, b));
        let below = below.into_iter().reduce(|a, b| self.binary(BinaryOperator::Multiply, a, b));
        let one = self.literal(1.0);
        let value = above.unwrap_or(one);
        let summand = Summand { value, by: last, is_negative };
        let Some(below) = below else { return summand };
        let above = self.multiplied(summand);
        let value = self.divided(above, below);
        Summand { value, by: None, is_negative }
    }

    fn divided(
        &mut self,
        above: Handle<Expression>,
        below: Handle<Expression>,
    ) -> Handle<Expression> {
        match self.style.division {
            Division::Exact => self.binary(BinaryOperator::Divide, above, below),
            Division::Reciprocal => {
                let one = self.literal(1.0);
                let reciprocal = self.binary(BinaryOperator::Divide, one, below);
                self.binary(BinaryOperator::Multiply, above, reciprocal)
            }
            Division::Off(ulp) => {
                let quotient = self.binary(BinaryOperator::Divide, above, below);
                self.off(quotient, ulp)
            }
        }
    }

    fn multiplied(&mut self, summand: Summand) -> Handle<Expression> {
        match summand.by {
            Some(by) => self.binary(BinaryOperator::Multiply, summand.value, by),
            None => summand.value,
        }
    }

    fn added(&mut self, one: Summand, other: Summand) -> Summand {
        let pair = if other.by.is_some() { [other, one] } else { [one, other] };
        if let [Summand { value, by: Some(by), is_negative }, plus] = pair
            && self.draws(self.style.contracts)
        {
            let factor = if is_negative { self.negated(value) } else { value };
            let plus_value = self.multiplied(plus);
            let plus_value = if plus.is_negative { self.negated(plus_value) } else { plus_value };
            let value = self.fused(factor, by, plus_value);
            return Summand { value, by: None, is_negative: false };
        }
        let [a, b] = [one, other].map(|summand| self.multiplied(summand));
        let (value, is_negative) = match (one.is_negative, other.is_negative) {
            (false, false) => (self.binary(BinaryOperator::Add, a, b), false),
            (true, true) => (self.binary(BinaryOperator::Add, a, b), true),
            (false, true) => (self.binary(BinaryOperator::Subtract, a, b), false),
            (true, false) => (self.binary(BinaryOperator::Subtract, b, a), false),
        };
        Summand { value, by: None, is_negative }
    }
}
