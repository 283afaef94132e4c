//! What follows from "no NaN, no infinity": tests of computed floats are known, and comparisons may
//! be turned round.

use std::collections::HashSet;

use naga::{BinaryOperator, Expression, Handle, MathFunction, ScalarKind};

use super::render::Rewrite;
use super::views::{Made, View};

impl Rewrite<'_> {
    /// Whether arithmetic gives the value, through selects, extremes and variables. What is read
    /// from memory or made of integers is anything.
    pub(super) fn is_computed(&self, view: View, seen: &mut HashSet<View>) -> bool {
        let view = self.source.followed(view);
        if !seen.insert(view.clone()) {
            // A variable of a loop is what all else that is stored in it is.
            return true;
        }
        match self.source.made(&view) {
            Made::Opaque => {}
            Made::Constant(value) => return value.is_finite(),
            _ => return true,
        }
        let (of, path) = view;
        let mut all = |parts: &[Handle<Expression>]| {
            parts.iter().all(|&part| self.is_computed(self.source.operand(part, &path), seen))
        };
        match *self.source.expression(of) {
            Expression::Select { accept, reject, .. } => all(&[accept, reject]),
            Expression::Math {
                fun: MathFunction::Abs | MathFunction::Min | MathFunction::Max,
                arg,
                arg1,
                ..
            } => all(&[Some(arg), arg1].into_iter().flatten().collect::<Vec<_>>()),
            Expression::As { expr, convert: Some(_), .. } => !self.source.is_float(expr),
            Expression::Load { pointer } => {
                let Some((local, to)) = self.source.local(pointer) else { return false };
                let to = [&to[..], &path[..]].concat();
                let Some(stores) = self.stores.get(&local) else { return false };
                stores.iter().all(|(stored_to, value)| match stored_to {
                    Some(stored_to) if to.starts_with(stored_to) => {
                        self.is_computed((*value, to[stored_to.len()..].to_vec()), seen)
                    }
                    // Another part of the variable.
                    Some(_) => true,
                    None => false,
                })
            }
            _ => false,
        }
    }

    /// The float that an integer is the masked bits of, and the mask.
    fn masked_bits(&self, view: View) -> Option<(View, u32)> {
        let (of, path) = self.source.followed(view.clone());
        if let Expression::Binary { op: BinaryOperator::And, left, right } =
            *self.source.expression(of)
        {
            let [left, right] = [left, right].map(|part| self.source.operand(part, &path));
            for (bits, mask) in [(&left, &right), (&right, &left)] {
                if let (Some(float), Some(mask)) = (
                    self.source.float_of_bits(bits.clone()),
                    self.source.constant_bits(mask.clone()),
                ) {
                    return Some((self.source.followed(float), mask));
                }
            }
            return None;
        }
        Some((self.source.followed(self.source.float_of_bits(view)?), u32::MAX))
    }

    /// What a comparison of a float's bits gives if the float is finite.
    fn finite_test(&self, op: BinaryOperator, left: View, right: View) -> Option<(View, bool)> {
        use BinaryOperator as Op;
        let (float, mask) = self.masked_bits(left)?;
        let bound = self.source.constant_bits(right)?;
        let most = match mask {
            0x7f80_0000 => 0x7f00_0000,
            0x7fff_ffff => 0x7f7f_ffff,
            _ => return None,
        };
        let result = match op {
            Op::Equal if bound > most => false,
            Op::NotEqual if bound > most => true,
            Op::Greater if bound >= most => false,
            Op::GreaterEqual if bound > most => false,
            Op::Less if bound > most => true,
            Op::LessEqual if bound >= most => true,
            _ => return None,
        };
        Some((float, result))
    }

    /// A comparison, or what is known of it.
    pub(super) fn comparison(
        &mut self,
        of: Handle<Expression>,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
    ) -> Handle<Expression> {
        use BinaryOperator as Op;
        if self.style.finite && self.source.is_u32(left) {
            let paths = self.source.components(of);
            let known: Vec<Option<bool>> =
                paths.iter().map(|path| self.known_test(op, left, right, path)).collect();
            if known.iter().any(Option::is_some) {
                return self.partly_known(of, op, left, right, &paths, &known);
            }
        }
        let [a, b] = [left, right].map(|part| self.value(part));
        let opposite = match op {
            Op::Less => Op::GreaterEqual,
            Op::LessEqual => Op::Greater,
            Op::Greater => Op::LessEqual,
            Op::GreaterEqual => Op::Less,
            Op::Equal => Op::NotEqual,
            _ => Op::Equal,
        };
        // Other only where an operand is NaN.
        if self.style.finite && self.source.is_f32(left) && self.draws(4) {
            let turned = self.binary(opposite, a, b);
            return self.not(turned);
        }
        self.binary(op, a, b)
    }

    fn known_test(
        &self,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
        path: &[u32],
    ) -> Option<bool> {
        let [left, right] = [left, right].map(|part| self.source.operand(part, path));
        let turned = match op {
            BinaryOperator::Less => BinaryOperator::Greater,
            BinaryOperator::LessEqual => BinaryOperator::GreaterEqual,
            BinaryOperator::Greater => BinaryOperator::Less,
            BinaryOperator::GreaterEqual => BinaryOperator::LessEqual,
            other => other,
        };
        let found = self
            .finite_test(op, left.clone(), right.clone())
            .or_else(|| self.finite_test(turned, right, left));
        found
            .filter(|(float, _)| self.is_computed(float.clone(), &mut HashSet::new()))
            .map(|(_, result)| result)
    }

    fn partly_known(
        &mut self,
        of: Handle<Expression>,
        op: BinaryOperator,
        left: Handle<Expression>,
        right: Handle<Expression>,
        paths: &[Vec<u32>],
        known: &[Option<bool>],
    ) -> Handle<Expression> {
        let mut components = Vec::new();
        for (path, known) in paths.iter().zip(known) {
            components.push(match known {
                Some(known) => self.out.pure(Expression::Literal(naga::Literal::Bool(*known))),
                None => {
                    let [a, b] = [left, right].map(|part| {
                        let (part, path) = self.source.operand(part, path);
                        let base = self.value(part);
                        path.iter().fold(base, |base, &index| {
                            self.out.pure(Expression::AccessIndex { base, index })
                        })
                    });
                    self.binary(op, a, b)
                }
            });
        }
        match &components[..] {
            [one] => *one,
            _ => self.composed(of, components),
        }
    }

    /// The arm of a select of floats that is not NaN, where the other one is chosen for being NaN.
    pub(super) fn finite_arm(
        &self,
        condition: Handle<Expression>,
        accept: Handle<Expression>,
        reject: Handle<Expression>,
    ) -> Option<Handle<Expression>> {
        if !self.style.finite {
            return None;
        }
        let is_nan = |arm: Handle<Expression>| {
            self.source.components(arm).into_iter().all(|path| self.is_constant_nan((arm, path)))
        };
        if is_nan(accept) {
            return Some(reject);
        }
        if is_nan(reject) {
            return Some(accept);
        }
        let Expression::Binary { op, left, right } = *self.source.expression(condition) else {
            return None;
        };
        let (float, finite) = self.finite_test(op, (left, Vec::new()), (right, Vec::new()))?;
        let arm = if finite { reject } else { accept };
        let other = if finite { accept } else { reject };
        (self.source.followed((arm, Vec::new())) == float).then_some(other)
    }

    fn is_constant_nan(&self, view: View) -> bool {
        let (of, path) = self.source.followed(view);
        let Expression::As { expr, kind: ScalarKind::Float, convert: None } =
            *self.source.expression(of)
        else {
            return false;
        };
        let bits = self.source.constant_bits(self.source.operand(expr, &path));
        bits.is_some_and(|bits| f32::from_bits(bits).is_nan())
    }
}
