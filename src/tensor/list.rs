//! The forms in which a call takes tensors: one, which is one rank, or a list, one for each rank.

use smallvec::SmallVec;

use super::Tensor;
use crate::error::ArgumentError;

/// A tensor for each rank. Up to four need no allocation, and more are rare.
pub(crate) type Tensors<'t> = SmallVec<[&'t Tensor; 4]>;

mod sealed {
    pub trait Sealed {}
    pub trait SealedMut {}
    pub trait SealedTarget<'a> {}
}

/// Tensors to read. Nothing is allocated for one, a slice, or a slice of references.
#[derive(Debug)]
pub enum List<'a> {
    One(&'a Tensor),
    Slice(&'a [Tensor]),
    References(&'a [&'a Tensor]),
    Owned(Vec<&'a Tensor>),
}

/// Tensors to write.
#[derive(Debug)]
pub enum ListMut<'a> {
    One(&'a mut Tensor),
    Slice(&'a mut [Tensor]),
    Owned(Vec<&'a mut Tensor>),
}

impl<'a> List<'a> {
    /// The tensors in rank order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &'a Tensor> {
        (0..self.len()).map(|rank| self.at(rank))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Slice(tensors) => tensors.len(),
            Self::References(tensors) => tensors.len(),
            Self::Owned(tensors) => tensors.len(),
        }
    }

    fn at(&self, rank: usize) -> &'a Tensor {
        match self {
            Self::One(tensor) => tensor,
            Self::Slice(tensors) => &tensors[rank],
            Self::References(tensors) => tensors[rank],
            Self::Owned(tensors) => tensors[rank],
        }
    }
}

impl<'a> ListMut<'a> {
    /// The tensors in rank order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        (0..self.len()).map(move |rank| match self {
            Self::One(tensor) => tensor,
            Self::Slice(tensors) => &tensors[rank],
            Self::Owned(tensors) => &*tensors[rank],
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Slice(tensors) => tensors.len(),
            Self::Owned(tensors) => tensors.len(),
        }
    }

    /// The tensors in rank order, to be written.
    pub(crate) fn into_tensors(self) -> SmallVec<[&'a mut Tensor; 4]> {
        match self {
            Self::One(tensor) => std::iter::once(tensor).collect(),
            Self::Slice(tensors) => tensors.iter_mut().collect(),
            Self::Owned(tensors) => tensors.into(),
        }
    }
}

/// The tensors that a call reads: one tensor for one rank, or a list with one tensor per rank.
/// These are `&x`, `&[x, …]`, `&vec`, `[&x, …]` and `Vec<&Tensor>`.
///
/// Only this crate implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tensor or list of tensors to read",
    label = "give `&x`, `&[x, …]`, `&vec`, `[&x, …]` or a `Vec<&Tensor>`",
    note = "of an `x: &mut Tensor` the layer reads `&*x`"
)]
pub trait Ranks<'a>: sealed::Sealed {
    /// Type of the result without targets: a [`Tensor`] for one tensor, a `Vec<Tensor>` for a list.
    type Output: Allocated;

    #[doc(hidden)]
    fn list(self) -> List<'a>;
}

/// The tensors that a call writes: as [`Ranks`], with `&mut`.
///
/// Only this crate implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tensor or list of tensors to write",
    label = "give `&mut y`, `&mut [y, …]`, `&mut vec`, `[&mut y, …]` or a `Vec<&mut Tensor>`"
)]
pub trait RanksMut<'a>: sealed::SealedMut {
    #[doc(hidden)]
    fn list(self) -> ListMut<'a>;
}

/// The target of a gradient: [`RanksMut`], or an `Option` of it. A gradient with `None` is not
/// computed.
///
/// Only this crate implements it.
pub trait Target<'a>: sealed::SealedTarget<'a> {
    #[doc(hidden)]
    fn target(self) -> Option<ListMut<'a>>;
}

/// Type of a call's result: a [`Tensor`], a `Vec<Tensor>`, or `()` if the caller gave the targets.
///
/// Only this crate implements it.
pub trait Output: sealed::Sealed + Send + Sync + Sized + 'static {
    #[doc(hidden)]
    fn of_list(list: Vec<Tensor>) -> Result<Self, ArgumentError>;
}

/// An [`Output`] that a call allocates: a [`Tensor`] or a `Vec<Tensor>`.
///
/// Only this crate implements it.
pub trait Allocated: Output {}

impl<'a, T: RanksMut<'a>> sealed::SealedTarget<'a> for T {}
impl<'a, T: RanksMut<'a>> sealed::SealedTarget<'a> for Option<T> {}

impl<'a, T: RanksMut<'a>> Target<'a> for T {
    fn target(self) -> Option<ListMut<'a>> {
        Some(self.list())
    }
}

impl<'a, T: RanksMut<'a>> Target<'a> for Option<T> {
    fn target(self) -> Option<ListMut<'a>> {
        self.map(RanksMut::list)
    }
}

impl sealed::Sealed for Tensor {}
impl sealed::Sealed for Vec<Tensor> {}
impl sealed::Sealed for () {}

impl Output for Tensor {
    fn of_list(mut list: Vec<Tensor>) -> Result<Self, ArgumentError> {
        list.pop().ok_or_else(ArgumentError::no_tensor)
    }
}

impl Output for Vec<Tensor> {
    fn of_list(list: Vec<Tensor>) -> Result<Self, ArgumentError> {
        Ok(list)
    }
}

impl Output for () {
    fn of_list(_: Vec<Tensor>) -> Result<Self, ArgumentError> {
        Ok(())
    }
}

impl Allocated for Tensor {}
impl Allocated for Vec<Tensor> {}

macro_rules! ranks {
    ($([$($generic:tt)*] $type:ty => $output:ty, $list:ident $($into:ident)?;)*) => {$(
        impl<'a, $($generic)*> sealed::Sealed for $type {}

        impl<'a, $($generic)*> Ranks<'a> for $type {
            type Output = $output;

            fn list(self) -> List<'a> {
                List::$list(self$(.$into())?)
            }
        }
    )*};
}

ranks! {
    [] &'a Tensor => Tensor, One;
    [] &'a [Tensor] => Vec<Tensor>, Slice;
    [] &'a Vec<Tensor> => Vec<Tensor>, Slice;
    [const N: usize] &'a [Tensor; N] => Vec<Tensor>, Slice;
    [] &'a [&'a Tensor] => Vec<Tensor>, References;
    [] &'a Vec<&'a Tensor> => Vec<Tensor>, References;
    [const N: usize] &'a [&'a Tensor; N] => Vec<Tensor>, References;
    [const N: usize] [&'a Tensor; N] => Vec<Tensor>, Owned into;
    [] Vec<&'a Tensor> => Vec<Tensor>, Owned;
}

macro_rules! ranks_mut {
    ($([$($generic:tt)*] $type:ty, $list:ident $($into:ident)?;)*) => {$(
        impl<'a, $($generic)*> sealed::SealedMut for $type {}

        impl<'a, $($generic)*> RanksMut<'a> for $type {
            fn list(self) -> ListMut<'a> {
                ListMut::$list(self$(.$into())?)
            }
        }
    )*};
}

ranks_mut! {
    [] &'a mut Tensor, One;
    [] &'a mut [Tensor], Slice;
    [] &'a mut Vec<Tensor>, Slice;
    [const N: usize] &'a mut [Tensor; N], Slice;
    [const N: usize] [&'a mut Tensor; N], Owned into;
    [] Vec<&'a mut Tensor>, Owned;
}
