//! Conversion between Burn's `BatchNorm` and the modules of this crate, of layers and of models.
//!
//! A model names the type of its layers, so no function can change it in a model of any type: a
//! `ModuleMapper` sees parameters, not layers. A model that is generic over its normalization can
//! be converted field by field, which [`convertible`](crate::convertible) writes.

use burn::nn;

use crate::activation::Activation;
use crate::error::Error;
use crate::module::{Normalization, OfGroup, OfRank, Scope};

/// A module that can become another one: with the same parameters, running statistics and ids.
///
/// Layers convert between Burn's `BatchNorm`, [`BatchNorm`](crate::BatchNorm) and
/// [`SyncBatchNorm`](crate::SyncBatchNorm); so do vectors, boxes and options of them. A model does
/// after [`convertible`](crate::convertible).
pub trait Convert<T> {
    /// The same as the other type.
    ///
    /// # Errors
    /// [`Error::Setting`] for a layer whose settings are outside their range;
    /// [`Error::NotInBurn`] for Burn's layer of one with an activation.
    fn convert(self) -> Result<T, Error>;
}

impl<S: Scope> Convert<Normalization<S>> for nn::BatchNorm {
    fn convert(self) -> Result<Normalization<S>, Error> {
        Normalization::from_burn(self)
    }
}

impl<S: Scope> Convert<nn::BatchNorm> for Normalization<S> {
    fn convert(self) -> Result<nn::BatchNorm, Error> {
        match self.activation() {
            Activation::None => Ok(self.into_burn()),
            found => Err(Error::NotInBurn { found: format!("{found:?}") }),
        }
    }
}

impl Convert<Normalization<OfRank>> for Normalization<OfGroup> {
    fn convert(self) -> Result<Normalization<OfRank>, Error> {
        self.into_scope()
    }
}

impl Convert<Normalization<OfGroup>> for Normalization<OfRank> {
    fn convert(self) -> Result<Normalization<OfGroup>, Error> {
        self.into_scope()
    }
}

impl<A: Convert<B>, B> Convert<Vec<B>> for Vec<A> {
    fn convert(self) -> Result<Vec<B>, Error> {
        self.into_iter().map(A::convert).collect()
    }
}

impl<A: Convert<B>, B> Convert<Box<B>> for Box<A> {
    fn convert(self) -> Result<Box<B>, Error> {
        (*self).convert().map(Box::new)
    }
}

impl<A: Convert<B>, B> Convert<Option<B>> for Option<A> {
    fn convert(self) -> Result<Option<B>, Error> {
        self.map(A::convert).transpose()
    }
}

/// Lets a model that is generic over its normalization convert into the same with another one:
/// writes [`Convert`] for it, of the fields that are normalizations or models of them, and of those
/// that it keeps.
///
/// ```
/// use burn::module::{Module, ModuleDisplay};
/// use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
/// use syncbn_burn::{Convert, SyncBatchNorm, convertible};
///
/// trait Norm: Module + ModuleDisplay {}
/// impl<N: Module + ModuleDisplay> Norm for N {}
///
/// #[derive(Module, Debug)]
/// struct Model<N: Norm> {
///     linear: Linear,
///     norms: Vec<N>,
/// }
///
/// convertible!(Model<Norm> { norms } keeps { linear });
///
/// # fn example(device: &burn::tensor::Device) -> Result<(), syncbn_burn::Error> {
/// let linear = LinearConfig::new(8, 8).init(device);
/// let burns = Model { linear, norms: vec![BatchNormConfig::new(8).init(device)] };
/// let ours: Model<SyncBatchNorm> = burns.convert()?;
/// let back: Model<BatchNorm> = ours.convert()?;
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! convertible {
    (
        $model:ident<$bound:path> { $($field:ident),* $(,)? } keeps { $($kept:ident),* $(,)? }
    ) => {
        impl<A, B> $crate::Convert<$model<B>> for $model<A>
        where
            A: $bound + $crate::Convert<B>,
            B: $bound,
        {
            fn convert(self) -> ::core::result::Result<$model<B>, $crate::Error> {
                ::core::result::Result::Ok($model {
                    $($field: $crate::Convert::convert(self.$field)?,)*
                    $($kept: self.$kept,)*
                })
            }
        }
    };
}
