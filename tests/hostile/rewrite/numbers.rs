//! Arithmetic as hardware may do it: an exact product within a sum, results a few ulp off,
//! subnormals flushed.

use naga::{BinaryOperator, Expression, Handle, Literal, MathFunction, ScalarKind, UnaryOperator};

use super::render::Rewrite;

type Value = Handle<Expression>;

impl Rewrite<'_> {
    pub(super) fn literal(&mut self, value: f32) -> Value {
        self.out.pure(Expression::Literal(Literal::F32(value)))
    }

    fn word(&mut self, value: u32) -> Value {
        self.out.pure(Expression::Literal(Literal::U32(value)))
    }

    pub(super) fn binary(&mut self, op: BinaryOperator, left: Value, right: Value) -> Value {
        self.out.pure(Expression::Binary { op, left, right })
    }

    pub(super) fn negated(&mut self, expr: Value) -> Value {
        self.out.pure(Expression::Unary { op: UnaryOperator::Negate, expr })
    }

    pub(super) fn not(&mut self, expr: Value) -> Value {
        self.out.pure(Expression::Unary { op: UnaryOperator::LogicalNot, expr })
    }

    pub(super) fn math(&mut self, fun: MathFunction, arg: Value) -> Value {
        self.out.pure(Expression::Math { fun, arg, arg1: None, arg2: None, arg3: None })
    }

    /// a·b + c, rounded once. Through f64, because a software driver makes two operations of `fma`:
    /// a product of two f32 is exact there, and the sum's own rounding is 2⁻²⁹ of an ulp of f32.
    pub(super) fn fused(&mut self, a: Value, b: Value, c: Value) -> Value {
        let [a, b, c] = [a, b, c].map(|expr| {
            self.out.pure(Expression::As { expr, kind: ScalarKind::Float, convert: Some(8) })
        });
        let product = self.binary(BinaryOperator::Multiply, a, b);
        let expr = self.binary(BinaryOperator::Add, product, c);
        self.out.pure(Expression::As { expr, kind: ScalarKind::Float, convert: Some(4) })
    }

    fn bits(&mut self, expr: Value) -> Value {
        self.out.pure(Expression::As { expr, kind: ScalarKind::Uint, convert: None })
    }

    fn float(&mut self, expr: Value) -> Value {
        self.out.pure(Expression::As { expr, kind: ScalarKind::Float, convert: None })
    }

    fn exponent(&mut self, bits: Value) -> Value {
        let mask = self.word(0x7f80_0000);
        self.binary(BinaryOperator::And, bits, mask)
    }

    /// A normal value so many ulp away from 0; others as they are.
    pub(super) fn off(&mut self, value: Value, ulp: i32) -> Value {
        if ulp == 0 {
            return value;
        }
        let bits = self.bits(value);
        let step = self.word(ulp as u32);
        let moved = self.binary(BinaryOperator::Add, bits, step);
        let moved = self.float(moved);
        // Neither the smallest binade nor the largest, so that the step neither ends at 0 nor at
        // infinity.
        let exponent = self.exponent(bits);
        let [smallest, span] =
            [0x0100_0000, 0x7e00_0000 - 0x0100_0000].map(|bound| self.word(bound));
        let above = self.binary(BinaryOperator::Subtract, exponent, smallest);
        let condition = self.binary(BinaryOperator::LessEqual, above, span);
        self.out.pure(Expression::Select { condition, accept: moved, reject: value })
    }

    /// A value, or 0 of its sign where it is subnormal.
    pub(super) fn flushed(&mut self, value: Value) -> Value {
        if !self.style.flushes {
            return value;
        }
        let bits = self.bits(value);
        let exponent = self.exponent(bits);
        let [zero, sign] = [0, 0x8000_0000].map(|word| self.word(word));
        let condition = self.binary(BinaryOperator::Equal, exponent, zero);
        let signed = self.binary(BinaryOperator::And, bits, sign);
        let accept = self.float(signed);
        self.out.pure(Expression::Select { condition, accept, reject: value })
    }
}
