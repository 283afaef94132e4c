//! What a local variable is known to hold: a value, or parts of which some are known.

use naga::{ArraySize, Expression, Handle, Type, TypeInner, UniqueArena};

/// Elements of an array that are followed one by one, at most.
const FOLLOWED: u32 = 16;

#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    Unknown,
    /// The part of a value that this path leads to.
    Value(Handle<Expression>, Vec<u32>),
    Parts(Vec<Known>),
}

/// The types of a type's parts, `None` where a part is a scalar; `None` where the type is followed
/// as a whole only.
pub fn parts(
    types: &UniqueArena<Type>,
    ty: Option<Handle<Type>>,
) -> Option<Vec<Option<Handle<Type>>>> {
    match &types[ty?].inner {
        TypeInner::Struct { members, .. } => {
            Some(members.iter().map(|member| Some(member.ty)).collect())
        }
        TypeInner::Vector { size, .. } => Some(vec![None; *size as usize]),
        &TypeInner::Array { base, size: ArraySize::Constant(size), .. }
            if size.get() <= FOLLOWED =>
        {
            Some(vec![Some(base); size.get() as usize])
        }
        _ => None,
    }
}

impl Known {
    /// As many parts.
    fn split(self, count: usize) -> Vec<Known> {
        match self {
            Self::Unknown => vec![Self::Unknown; count],
            Self::Parts(parts) => parts,
            Self::Value(value, path) => {
                let part =
                    |index| Self::Value(value, path.iter().copied().chain([index]).collect());
                (0..count as u32).map(part).collect()
            }
        }
    }

    /// Notes what lies at a path of a variable of this type.
    pub fn set(
        &mut self,
        types: &UniqueArena<Type>,
        ty: Option<Handle<Type>>,
        path: &[u32],
        value: Known,
    ) {
        let [index, rest @ ..] = path else {
            *self = value;
            return;
        };
        let Some(of) = parts(types, ty) else {
            *self = Self::Unknown;
            return;
        };
        let mut split = std::mem::replace(self, Self::Unknown).split(of.len());
        split[*index as usize].set(types, of[*index as usize], rest, value);
        *self = Self::Parts(split);
    }

    /// What lies at a path.
    pub fn at(&self, path: &[u32]) -> Known {
        match (self, path) {
            (_, []) => self.clone(),
            (Self::Unknown, _) => Self::Unknown,
            (Self::Value(value, to), _) => {
                Self::Value(*value, to.iter().chain(path).copied().collect())
            }
            (Self::Parts(parts), [index, rest @ ..]) => parts[*index as usize].at(rest),
        }
    }

    /// What is known whichever of two ways was taken.
    pub fn either(self, other: Known) -> Known {
        if self == other {
            return self;
        }
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Value(..), Self::Value(..)) => Self::Unknown,
            (Self::Parts(parts), other) | (other, Self::Parts(parts)) => {
                let other = other.split(parts.len());
                Self::Parts(
                    parts.into_iter().zip(other).map(|(one, other)| one.either(other)).collect(),
                )
            }
        }
    }
}
