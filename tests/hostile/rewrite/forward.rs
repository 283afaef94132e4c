//! Values of a straightened function: what local variables are known to hold takes the place of
//! loads.

use naga::{
    AddressSpace, Expression, Handle, Literal, LocalVariable, StorageAccess, Type, TypeInner,
    UnaryOperator,
};

use super::build::with_parts;
use super::known::{Known, parts};
use super::straighten::{Frame, Straighten};

impl<'a> Straighten<'a> {
    /// The new expression for one of a frame.
    pub(super) fn value(
        &mut self,
        frame: &Frame<'a>,
        old: Handle<Expression>,
    ) -> Handle<Expression> {
        match frame.values.get(&old) {
            Some(&value) => value,
            None => self.made(frame, old),
        }
    }

    pub(super) fn made(
        &mut self,
        frame: &Frame<'a>,
        old: Handle<Expression>,
    ) -> Handle<Expression> {
        match frame.function.expressions[old] {
            Expression::FunctionArgument(index) => match &frame.call {
                Some(call) => call.arguments[index as usize],
                None => self.out.pure(Expression::FunctionArgument(index)),
            },
            Expression::LocalVariable(local) => {
                self.out.pure(Expression::LocalVariable(frame.locals[&local]))
            }
            Expression::Constant(constant) => self.constant(self.module.constants[constant].init),
            Expression::AccessIndex { base, index } => {
                let base = self.value(frame, base);
                self.part(base, index)
            }
            Expression::Load { pointer } => {
                let pointer = self.value(frame, pointer);
                self.load(pointer)
            }
            ref other => {
                let new = with_parts(other, &mut |part| self.value(frame, part));
                self.out.pure(new)
            }
        }
    }

    /// A constant as an expression of the function.
    pub(super) fn constant(&mut self, init: Handle<Expression>) -> Handle<Expression> {
        match self.module.global_expressions[init] {
            Expression::Constant(constant) => self.constant(self.module.constants[constant].init),
            ref other => {
                let new = with_parts(other, &mut |part| self.constant(part));
                self.out.pure(new)
            }
        }
    }

    /// A part of a value, or a pointer to it.
    pub(super) fn part(&mut self, base: Handle<Expression>, index: u32) -> Handle<Expression> {
        if let Expression::Compose { ty, ref components } = self.out.expressions[base] {
            let count = match self.module.types[ty].inner {
                // A vector may be made of vectors.
                TypeInner::Vector { size, .. } => size as usize,
                _ => components.len(),
            };
            if components.len() == count {
                return components[index as usize];
            }
        }
        self.out.pure(Expression::AccessIndex { base, index })
    }

    pub(super) fn load(&mut self, pointer: Handle<Expression>) -> Handle<Expression> {
        if let Some((local, Some(path))) = self.target(pointer) {
            let mut ty = Some(self.out.locals[local].ty);
            for &index in &path {
                ty = parts(&self.module.types, ty).and_then(|parts| parts[index as usize]);
            }
            let known = self.known.get(&local).map_or(Known::Unknown, |known| known.at(&path));
            return self.assembled(known, ty, pointer);
        }
        match self.is_constant_memory(pointer) {
            true => self.out.pure(Expression::Load { pointer }),
            false => self.out.fresh(Expression::Load { pointer }),
        }
    }

    /// What lies in a local variable, from what is known of it.
    pub(super) fn assembled(
        &mut self,
        known: Known,
        ty: Option<Handle<Type>>,
        pointer: Handle<Expression>,
    ) -> Handle<Expression> {
        match (known, ty, parts(&self.module.types, ty)) {
            (Known::Value(mut value, path), ..) => {
                for index in path {
                    value = self.part(value, index);
                }
                value
            }
            (Known::Parts(known), Some(ty), Some(types))
                if known.iter().any(|known| *known != Known::Unknown) =>
            {
                let parts = known.into_iter().zip(types).zip(0u32..);
                let part = |((known, ty), index)| {
                    let pointer = self.out.pure(Expression::AccessIndex { base: pointer, index });
                    self.assembled(known, ty, pointer)
                };
                let components = parts.map(part).collect();
                self.out.pure(Expression::Compose { ty, components })
            }
            _ => {
                let value = self.out.fresh(Expression::Load { pointer });
                self.note(pointer, Known::Value(value, Vec::new()));
                value
            }
        }
    }

    /// Notes what a pointer into a local variable leads to from now on.
    pub(super) fn note(&mut self, pointer: Handle<Expression>, value: Known) {
        let Some((local, path)) = self.target(pointer) else { return };
        let ty = self.out.locals[local].ty;
        let known = self.known.entry(local).or_insert(Known::Unknown);
        match path {
            Some(path) => known.set(&self.module.types, Some(ty), &path, value),
            None => *known = Known::Unknown,
        }
    }

    /// The local variable that a pointer leads into, with the path where that is constant.
    pub(super) fn target(
        &self,
        pointer: Handle<Expression>,
    ) -> Option<(Handle<LocalVariable>, Option<Vec<u32>>)> {
        match self.out.expressions[pointer] {
            Expression::LocalVariable(local) => Some((local, Some(Vec::new()))),
            Expression::AccessIndex { base, index } => {
                let (local, path) = self.target(base)?;
                Some((local, path.map(|path| [path, vec![index]].concat())))
            }
            Expression::Access { base, .. } => Some((self.target(base)?.0, None)),
            _ => None,
        }
    }

    /// Whether nobody writes where a pointer leads to.
    pub(super) fn is_constant_memory(&self, pointer: Handle<Expression>) -> bool {
        match self.out.expressions[pointer] {
            Expression::AccessIndex { base, .. } | Expression::Access { base, .. } => {
                self.is_constant_memory(base)
            }
            Expression::GlobalVariable(global) => {
                match self.module.global_variables[global].space {
                    AddressSpace::Uniform => true,
                    AddressSpace::Storage { access } => !access.contains(StorageAccess::STORE),
                    _ => false,
                }
            }
            _ => false,
        }
    }

    pub(super) fn constant_bool(&self, condition: Handle<Expression>) -> Option<bool> {
        match self.out.expressions[condition] {
            Expression::Literal(Literal::Bool(value)) => Some(value),
            Expression::Unary { op: UnaryOperator::LogicalNot, expr } => {
                self.constant_bool(expr).map(|value| !value)
            }
            _ => None,
        }
    }
}
