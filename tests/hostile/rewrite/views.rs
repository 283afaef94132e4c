//! Scalars of expressions: a component of a vector or of a matrix, followed to where it is made.

use naga::valid::FunctionInfo;
use naga::{
    BinaryOperator, Expression, Function, Handle, Literal, LocalVariable, MathFunction, Module,
    ScalarKind, TypeInner, UnaryOperator,
};

/// A part of an expression: empty for a scalar, else the index within a vector, or column and row.
pub type View = (Handle<Expression>, Vec<u32>);

/// How a scalar float is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Made {
    Constant(f64),
    Add(View, View),
    Subtract(View, View),
    Negate(View),
    Multiply(View, View),
    Divide(View, View),
    Fma(View, View, View),
    Sqrt(View),
    InverseSqrt(View),
    /// By something that is not looked through.
    Opaque,
}

/// A straightened function with its types.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub module: &'a Module,
    pub function: &'a Function,
    pub info: &'a FunctionInfo,
}

impl<'a> Source<'a> {
    pub fn ty(&self, of: Handle<Expression>) -> &'a TypeInner {
        self.info[of].ty.inner_with(&self.module.types)
    }

    pub fn expression(&self, of: Handle<Expression>) -> &'a Expression {
        &self.function.expressions[of]
    }

    /// Whether it is of f32: a scalar, a vector or a matrix.
    pub fn is_f32(&self, of: Handle<Expression>) -> bool {
        let scalar = match *self.ty(of) {
            TypeInner::Scalar(scalar)
            | TypeInner::Vector { scalar, .. }
            | TypeInner::Matrix { scalar, .. } => scalar,
            _ => return false,
        };
        scalar == naga::Scalar::F32
    }

    pub fn is_u32(&self, of: Handle<Expression>) -> bool {
        matches!(
            *self.ty(of),
            TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. }
                if scalar == naga::Scalar::U32
        )
    }

    pub fn is_float(&self, of: Handle<Expression>) -> bool {
        self.ty(of).scalar_kind() == Some(ScalarKind::Float)
    }

    /// The local variable that a pointer leads into, with the path where that is constant.
    pub fn target(
        &self,
        pointer: Handle<Expression>,
    ) -> Option<(Handle<LocalVariable>, Option<Vec<u32>>)> {
        match *self.expression(pointer) {
            Expression::LocalVariable(local) => Some((local, Some(Vec::new()))),
            Expression::AccessIndex { base, index } => {
                let (local, path) = self.target(base)?;
                Some((local, path.map(|path| [path, vec![index]].concat())))
            }
            Expression::Access { base, .. } => Some((self.target(base)?.0, None)),
            _ => None,
        }
    }

    /// The same where the path is constant.
    pub fn local(&self, pointer: Handle<Expression>) -> Option<(Handle<LocalVariable>, Vec<u32>)> {
        let (local, path) = self.target(pointer)?;
        Some((local, path?))
    }

    /// The components of an expression of numbers, in order.
    pub fn components(&self, of: Handle<Expression>) -> Vec<Vec<u32>> {
        match *self.ty(of) {
            TypeInner::Vector { size, .. } => (0..size as u32).map(|index| vec![index]).collect(),
            TypeInner::Matrix { columns, rows, .. } => (0..columns as u32)
                .flat_map(|column| (0..rows as u32).map(move |row| vec![column, row]))
                .collect(),
            _ => vec![Vec::new()],
        }
    }

    /// The part of an operand that makes a component of the result: a scalar operand makes all of
    /// them.
    pub fn operand(&self, of: Handle<Expression>, path: &[u32]) -> View {
        match self.ty(of) {
            TypeInner::Scalar(_) => (of, Vec::new()),
            _ => (of, path.to_vec()),
        }
    }

    /// Where a component is made.
    pub fn followed(&self, view: View) -> View {
        let (of, path) = view;
        match (self.expression(of), &path[..]) {
            (&Expression::AccessIndex { base, index }, _)
                if self.ty(base).pointer_space().is_none() =>
            {
                let whole = [&[index], &path[..]].concat();
                let followed = self.followed((base, whole.clone()));
                if followed == (base, whole) && !self.is_number(base) {
                    (of, path)
                } else {
                    followed
                }
            }
            (&Expression::Splat { value, .. }, [_]) => self.followed((value, Vec::new())),
            (&Expression::Swizzle { vector, pattern, .. }, [index]) => {
                self.followed((vector, vec![pattern[*index as usize] as u32]))
            }
            (Expression::Compose { components, .. }, [index, rest @ ..]) => {
                if !matches!(self.ty(of), TypeInner::Vector { .. }) {
                    return self.followed((components[*index as usize], rest.to_vec()));
                }
                let mut left = *index;
                for &component in components {
                    let size = match *self.ty(component) {
                        TypeInner::Vector { size, .. } => size as u32,
                        _ => 1,
                    };
                    if left < size {
                        let path = if size == 1 { Vec::new() } else { vec![left] };
                        return self.followed((component, path));
                    }
                    left -= size;
                }
                unreachable!("a component within the vector")
            }
            (&Expression::As { expr, kind: ScalarKind::Float, convert: None }, _) => {
                // The bits of a float, unchanged: a compiler sees through.
                match self.float_of_bits(self.operand(expr, &path)) {
                    Some(float) => self.followed(float),
                    None => (of, path),
                }
            }
            _ => (of, path),
        }
    }

    fn is_number(&self, of: Handle<Expression>) -> bool {
        matches!(
            self.ty(of),
            TypeInner::Scalar(_) | TypeInner::Vector { .. } | TypeInner::Matrix { .. }
        )
    }

    /// The f32 whose bits an integer is, as far as a compiler knows at compile time.
    pub fn float_of_bits(&self, bits: View) -> Option<View> {
        let (of, path) = self.followed(bits);
        match *self.expression(of) {
            Expression::As { expr, convert: None, .. } if self.is_f32(expr) => {
                Some(self.operand(expr, &path))
            }
            Expression::Binary { op, left, right } => {
                let left = self.operand(left, &path);
                let right = self.operand(right, &path);
                use BinaryOperator as Op;
                let neutral = if op == Op::And { u32::MAX } else { 0 };
                let is_neutral = |view: &View| self.constant_bits(view.clone()) == Some(neutral);
                match op {
                    Op::And | Op::InclusiveOr | Op::ExclusiveOr | Op::Add if is_neutral(&right) => {
                        self.float_of_bits(left)
                    }
                    Op::And | Op::InclusiveOr | Op::ExclusiveOr | Op::Add if is_neutral(&left) => {
                        self.float_of_bits(right)
                    }
                    Op::Subtract | Op::ShiftLeft | Op::ShiftRight if is_neutral(&right) => {
                        self.float_of_bits(left)
                    }
                    // (a ^ z) ^ z
                    Op::ExclusiveOr => {
                        let (inner, path) = self.followed(left);
                        let Expression::Binary { op: Op::ExclusiveOr, left, right: other } =
                            *self.expression(inner)
                        else {
                            return None;
                        };
                        let is_same =
                            self.followed(self.operand(other, &path)) == self.followed(right);
                        is_same.then(|| self.float_of_bits(self.operand(left, &path))).flatten()
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The bits of a constant of 32 bits.
    pub fn constant_bits(&self, view: View) -> Option<u32> {
        let (of, _) = self.followed(view);
        match *self.expression(of) {
            Expression::Literal(Literal::U32(value)) => Some(value),
            Expression::Literal(Literal::I32(value)) => Some(value as u32),
            Expression::Literal(Literal::F32(value)) => Some(value.to_bits()),
            Expression::ZeroValue(_) => Some(0),
            _ => None,
        }
    }

    /// How a component of f32 is made.
    pub fn made(&self, view: &View) -> Made {
        let (of, path) = view;
        let operand = |of| self.operand(of, path);
        if let Some(bits) =
            matches!(self.expression(*of), Expression::Literal(_) | Expression::ZeroValue(_))
                .then(|| self.constant_bits(view.clone()))
                .flatten()
        {
            return Made::Constant(f32::from_bits(bits).into());
        }
        match *self.expression(*of) {
            Expression::Binary { op, left, right } if self.is_f32(*of) => match op {
                BinaryOperator::Add => Made::Add(operand(left), operand(right)),
                BinaryOperator::Subtract => Made::Subtract(operand(left), operand(right)),
                BinaryOperator::Divide => Made::Divide(operand(left), operand(right)),
                BinaryOperator::Multiply if !self.is_linear_map(left, right) => {
                    Made::Multiply(operand(left), operand(right))
                }
                _ => Made::Opaque,
            },
            Expression::Unary { op: UnaryOperator::Negate, expr } if self.is_f32(*of) => {
                Made::Negate(operand(expr))
            }
            Expression::Math { fun, arg, arg1, arg2, .. } if self.is_f32(*of) => {
                match (fun, arg1, arg2) {
                    (MathFunction::Fma, Some(by), Some(plus)) => {
                        Made::Fma(operand(arg), operand(by), operand(plus))
                    }
                    (MathFunction::Sqrt, ..) => Made::Sqrt(operand(arg)),
                    (MathFunction::InverseSqrt, ..) => Made::InverseSqrt(operand(arg)),
                    _ => Made::Opaque,
                }
            }
            _ => Made::Opaque,
        }
    }

    /// Whether a product is that of linear algebra, and not one of components.
    fn is_linear_map(&self, left: Handle<Expression>, right: Handle<Expression>) -> bool {
        let is_matrix = |of| matches!(self.ty(of), TypeInner::Matrix { .. });
        let is_scalar = |of| matches!(self.ty(of), TypeInner::Scalar(_));
        (is_matrix(left) && !is_scalar(right)) || (is_matrix(right) && !is_scalar(left))
    }
}
