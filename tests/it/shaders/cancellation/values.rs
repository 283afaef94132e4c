//! Where the values of a function come from: whether a component is arithmetic that has passed no
//! barrier.

use std::collections::{HashMap, HashSet};

use naga::valid::FunctionInfo;
use naga::{
    Arena, BinaryOperator, Expression, Function, Handle, Literal, LocalVariable, MathFunction,
    ScalarKind, TypeInner, UnaryOperator,
};

use super::super::check::Shader;

/// What a variable holds: where, and the value.
pub type Held = Vec<(Vec<u32>, Handle<Expression>)>;

/// How many steps a value is followed.
const STEPS: usize = 64;

/// What is known of the functions so far.
pub struct Known<'a> {
    pub shader: &'a Shader,
    /// Those that return a float through an integer.
    pub barriers: HashSet<Handle<Function>>,
    /// The arguments that a function subtracts, with the path to the component.
    pub sinks: HashMap<Handle<Function>, HashSet<(u32, Vec<u32>)>>,
    /// What loads of local variables may give.
    pub loaded: HashMap<Handle<Function>, HashMap<Handle<Expression>, Held>>,
    /// What functions return.
    pub returned: HashMap<Handle<Function>, Vec<Handle<Expression>>>,
}

/// A function whose values are followed.
#[derive(Clone, Copy)]
pub struct Values<'a, 'k> {
    pub known: &'k Known<'a>,
    pub function: &'a Function,
    pub info: &'a FunctionInfo,
    pub loaded: &'k HashMap<Handle<Expression>, Held>,
}

impl Values<'_, '_> {
    pub fn expression(&self, of: Handle<Expression>) -> &Expression {
        &self.function.expressions[of]
    }

    fn ty(&self, of: Handle<Expression>) -> &TypeInner {
        self.info[of].ty.inner_with(&self.known.shader.module.types)
    }

    pub fn is_float(&self, of: Handle<Expression>) -> bool {
        let ty = self.ty(of);
        let is_number = matches!(
            ty,
            TypeInner::Scalar(_) | TypeInner::Vector { .. } | TypeInner::Matrix { .. }
        );
        is_number && ty.scalar_kind() == Some(ScalarKind::Float)
    }

    pub fn is_bool(&self, of: Handle<Expression>) -> bool {
        self.ty(of).scalar_kind() == Some(ScalarKind::Bool)
    }

    pub fn is_constant(&self, of: Handle<Expression>) -> bool {
        match self.expression(of) {
            Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => true,
            Expression::Splat { value, .. } => self.is_constant(*value),
            Expression::Compose { components, .. } => {
                components.iter().all(|&part| self.is_constant(part))
            }
            _ => false,
        }
    }

    /// Whether it is a float that is negated by its form: a negation, a negative number, or either
    /// of them in a product or a quotient.
    pub fn is_negation(&self, of: Handle<Expression>) -> bool {
        let is_negation = |part: &Handle<Expression>| self.is_negation(*part);
        match *self.expression(of) {
            Expression::Unary { op: UnaryOperator::Negate, .. } => self.is_float(of),
            Expression::Binary {
                op: BinaryOperator::Multiply | BinaryOperator::Divide,
                left,
                right,
            } => self.is_float(of) && [left, right].iter().any(is_negation),
            Expression::Splat { value, .. } => self.is_negation(value),
            Expression::Compose { ref components, .. } => components.iter().any(is_negation),
            Expression::Literal(Literal::F32(number)) => number < 0.0,
            Expression::Constant(constant) => {
                let module = &self.known.shader.module;
                is_negative(&module.global_expressions, module.constants[constant].init)
            }
            _ => false,
        }
    }

    /// Where a component was put together, as far as that is known.
    fn followed(&self, of: Handle<Expression>, path: &[u32]) -> (Handle<Expression>, Vec<u32>) {
        match (self.expression(of), path) {
            (&Expression::AccessIndex { base, index }, _) => {
                self.followed(base, &[&[index], path].concat())
            }
            (&Expression::Splat { value, .. }, [_]) => self.followed(value, &[]),
            (&Expression::Swizzle { vector, pattern, .. }, [index]) => {
                self.followed(vector, &[pattern[*index as usize] as u32])
            }
            (Expression::Compose { components, .. }, [index, rest @ ..]) => {
                if !matches!(self.ty(of), TypeInner::Vector { .. }) {
                    return self.followed(components[*index as usize], rest);
                }
                let mut left = *index;
                for &component in components {
                    match *self.ty(component) {
                        TypeInner::Vector { size, .. } if left < size as u32 => {
                            return self.followed(component, &[left]);
                        }
                        TypeInner::Vector { size, .. } => left -= size as u32,
                        _ if left == 0 => return self.followed(component, &[]),
                        _ => left -= 1,
                    }
                }
                unreachable!("a component within the vector")
            }
            _ => (of, path.to_vec()),
        }
    }

    /// Whether a component of a value, or any of them, is arithmetic that has passed no barrier.
    /// Selects count as barriers: no compiler looks through them.
    pub fn is_arithmetic(&self, of: Handle<Expression>, path: &[u32]) -> bool {
        self.is_arithmetic_within(of, path, STEPS)
    }

    fn is_arithmetic_within(&self, of: Handle<Expression>, path: &[u32], steps: usize) -> bool {
        let Some(steps) = steps.checked_sub(1) else { return false };
        let (of, path) = self.followed(of, path);
        match *self.expression(of) {
            Expression::Binary { op, .. } => {
                use BinaryOperator as Op;
                self.is_float(of)
                    && matches!(op, Op::Add | Op::Subtract | Op::Multiply | Op::Divide)
            }
            Expression::Unary { op: UnaryOperator::Negate, .. } => self.is_float(of),
            Expression::Math { fun, .. } => {
                self.is_float(of)
                    && !matches!(fun, MathFunction::Abs | MathFunction::Min | MathFunction::Max)
            }
            Expression::CallResult(callee) => {
                let known = self.known;
                let function = &known.shader.module.functions[callee];
                let loaded = &known.loaded[&callee];
                let within = Values { known, function, info: &known.shader.info[callee], loaded };
                let mut returned = known.returned[&callee].iter();
                !known.barriers.contains(&callee)
                    && returned.any(|&value| within.is_arithmetic_within(value, &path, steps))
            }
            Expression::Load { pointer } => {
                let (Some(held), Some((_, to))) = (self.loaded.get(&of), self.local(pointer))
                else {
                    return false;
                };
                let to = [&to[..], &path[..]].concat();
                held.iter().any(|(at, value)| match to.strip_prefix(&at[..]) {
                    Some(rest) => self.is_arithmetic_within(*value, rest, steps),
                    None => at.starts_with(&to) && self.is_arithmetic_within(*value, &[], steps),
                })
            }
            Expression::Access { base, .. } => self.is_arithmetic_within(base, &[], steps),
            // All of it is asked for.
            Expression::Compose { ref components, .. } => {
                components.iter().any(|&part| self.is_arithmetic_within(part, &[], steps))
            }
            Expression::Splat { value: part, .. } | Expression::Swizzle { vector: part, .. } => {
                self.is_arithmetic_within(part, &[], steps)
            }
            _ => false,
        }
    }

    /// The arguments of this function that a component of a value is.
    pub fn arguments(&self, of: Handle<Expression>, path: &[u32]) -> Vec<(u32, Vec<u32>)> {
        let (of, path) = self.followed(of, path);
        let all = |parts: &[Handle<Expression>]| {
            parts.iter().flat_map(|&part| self.arguments(part, &[])).collect()
        };
        match *self.expression(of) {
            Expression::FunctionArgument(index) => vec![(index, path)],
            Expression::Compose { ref components, .. } => all(components),
            Expression::Splat { value: part, .. } | Expression::Swizzle { vector: part, .. } => {
                all(&[part])
            }
            _ => Vec::new(),
        }
    }

    /// The local variable that a pointer leads into, and the path as far as it is constant.
    pub fn local(&self, pointer: Handle<Expression>) -> Option<(Handle<LocalVariable>, Vec<u32>)> {
        match *self.expression(pointer) {
            Expression::LocalVariable(local) => Some((local, Vec::new())),
            Expression::AccessIndex { base, index } => {
                self.local(base).map(|(local, path)| (local, [path, vec![index]].concat()))
            }
            Expression::Access { base, .. } => self.local(base),
            _ => None,
        }
    }
}

/// Whether a number that is known at compile time, or a component of it, is below 0.
fn is_negative(numbers: &Arena<Expression>, of: Handle<Expression>) -> bool {
    match numbers[of] {
        Expression::Literal(Literal::F32(number)) => number < 0.0,
        Expression::Splat { value, .. } => is_negative(numbers, value),
        Expression::Compose { ref components, .. } => {
            components.iter().any(|&part| is_negative(numbers, part))
        }
        _ => false,
    }
}
