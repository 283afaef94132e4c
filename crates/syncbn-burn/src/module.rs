//! The modules: Burn's `BatchNorm` with the kernels of `syncbn`, over the values of one rank or of
//! all ranks.

mod burn_module;
mod call;
mod joint;

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use burn::nn;
use burn::tensor::{Gradients, Tensor};

use crate::activation::Activation;
use crate::config;
use crate::error::{Error, catch, raise};
use crate::layer::Layers;

mod sealed {
    pub trait Sealed {}
}

/// The values over which a module takes mean and variance. Only this crate implements it.
pub trait Scope: sealed::Sealed + Clone + Copy + fmt::Debug + Send + Sync + 'static {
    #[doc(hidden)]
    const NAME: &'static str;
    #[doc(hidden)]
    const OF_GROUP: bool;
}

/// The values of all ranks of a group.
#[derive(Clone, Copy, Debug)]
pub struct OfGroup;

/// The values of the rank.
#[derive(Clone, Copy, Debug)]
pub struct OfRank;

impl sealed::Sealed for OfGroup {}
impl sealed::Sealed for OfRank {}

impl Scope for OfGroup {
    const NAME: &'static str = "SyncBatchNorm";
    const OF_GROUP: bool = true;
}

impl Scope for OfRank {
    const NAME: &'static str = "BatchNorm";
    const OF_GROUP: bool = false;
}

/// Batch normalization over (N, C, ...) with the mean and variance of all ranks of a group.
///
/// Gradients of `gamma` and `beta` are sums over this rank's values. The program averages them over
/// the ranks, for example with [`average_gradients`](crate::average_gradients). One value per
/// channel in the whole group is an error. [`Normalization`] has the methods.
///
/// # Threads
/// Every rank runs on its own thread, the same in every step. All ranks use their modules in the
/// same order, and call backward once for every forward that they differentiate.
///
/// Ranks must not share parameter nodes of the autodiff graph. Burn locks a graph during backward,
/// and the rank that holds the lock would wait for one that waits for the lock, until the group's
/// deadline. So make a model per rank and load the same record into each, or `fork` it. A plain
/// `clone` shares nodes.
///
/// Keep a module, or a clone of it, until backward. It holds the rank in its group. Burn's graph
/// does not.
///
/// # Order
/// Ranks compare the names of the modules that they use. The default name of a module is its number
/// among the modules made on its device, so every rank must make its modules in the same order.
pub type SyncBatchNorm = Normalization<OfGroup>;

/// Batch normalization over (N, C, ...) with the mean and variance of the rank's own batch, in
/// fewer kernels than Burn's layer.
///
/// Forward is one submission, and so is backward. Burn's queued work is submitted before it, such
/// as its averaging of running statistics over threads, which each step leaves to the next. Nothing
/// is read back and nothing waits. The rank's group is not used. [`Normalization`] has the methods.
pub type BatchNorm = Normalization<OfRank>;

/// Burn's `BatchNorm` with other kernels: a [`SyncBatchNorm`] or a [`BatchNorm`].
///
/// It dereferences to Burn's layer, and has its fields, record, defaults and behaviour. On a device
/// with autodiff, unless it is frozen, it normalizes with the statistics of the batch and updates
/// the running statistics (with the biased variance, as Burn does). Otherwise it normalizes with
/// the running statistics and exchanges nothing. It is made on the device of a
/// [`Rank`](crate::Rank). [`from_burn`](Self::from_burn) and [`into_burn`](Self::into_burn)
/// convert.
#[derive(Clone, Debug)]
pub struct Normalization<S: Scope> {
    norm: nn::BatchNorm,
    activation: Activation,
    layers: Arc<Layers>,
    scope: PhantomData<S>,
}

impl<S: Scope> Normalization<S> {
    pub(crate) fn of(
        norm: nn::BatchNorm,
        activation: Activation,
        name: Option<&str>,
    ) -> Result<Self, Error> {
        config::check(norm.epsilon, norm.momentum)?;
        let [channels] = norm.gamma.shape().dims();
        let layers = Layers::new(channels, name, &norm.gamma.device())?.into();
        Ok(Self { norm, activation, layers, scope: PhantomData })
    }

    /// A layer of Burn's as this one, with its parameters, running statistics, their ids, settings
    /// and device.
    ///
    /// # Errors
    /// [`Error::Setting`] for an epsilon or momentum that was set outside its range since.
    pub fn from_burn(norm: nn::BatchNorm) -> Result<Self, Error> {
        Self::of(norm, Activation::None, None)
    }

    /// This layer as Burn's. An activation is not Burn's to apply: it is left to the caller.
    pub fn into_burn(self) -> nn::BatchNorm {
        self.norm
    }

    /// The same with the statistics of other values.
    pub(crate) fn into_scope<T: Scope>(self) -> Result<Normalization<T>, Error> {
        let name = self.layers.name().to_owned();
        Normalization::of(self.norm, self.activation, Some(&name))
    }

    /// The same module with an activation in the kernel that normalizes.
    pub fn with_activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// The activation that follows.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Its name in errors, the same on every rank.
    pub fn name(&self) -> &str {
        self.layers.name()
    }

    /// Normalizes a tensor of shape (N, C, ...), and applies the activation.
    ///
    /// # Panics
    /// With the message of the error where [`try_forward`](Self::try_forward) returns one.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.try_forward(input).unwrap_or_else(|error| raise(error))
    }

    /// Normalizes a tensor, adds the residual, which has its dimensions and type, and applies the
    /// activation.
    ///
    /// # Panics
    /// With the message of the error where [`try_forward_add`](Self::try_forward_add) returns one.
    pub fn forward_add<const D: usize>(&self, input: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        self.try_forward_add(input, residual).unwrap_or_else(|error| raise(error))
    }

    /// [`forward`](Self::forward) with failures as values. The running statistics are unchanged
    /// then, and in training the other ranks are notified.
    ///
    /// # Errors
    /// [`Error::Input`] for other dimensions; in training, [`Error::NoRank`] on a device without a
    /// rank, [`Error::DType`], and [`Error::Layer`] with everything that the exchange reports: a
    /// rank that failed, is late or is elsewhere is an error on every rank within the group's
    /// deadline.
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        self.call(input, None)
    }

    /// [`forward_add`](Self::forward_add) with failures as values.
    ///
    /// # Errors
    /// As [`try_forward`](Self::try_forward), and [`Error::Residual`] or [`Error::Layer`] for a
    /// residual of other dimensions.
    pub fn try_forward_add<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Result<Tensor<D>, Error> {
        self.call(input, Some(residual))
    }
}

impl<S: Scope> Deref for Normalization<S> {
    type Target = nn::BatchNorm;

    fn deref(&self) -> &nn::BatchNorm {
        &self.norm
    }
}

impl<S: Scope> DerefMut for Normalization<S> {
    fn deref_mut(&mut self) -> &mut nn::BatchNorm {
        &mut self.norm
    }
}

/// `loss.backward()` with failures of the modules as values: of the exchange with the other ranks,
/// above all. The graph of the loss is used up either way.
///
/// # Errors
/// Those of a module's backward; [`Normalization::try_forward`] lists them.
///
/// # Panics
/// Where `loss.backward()` panics for reasons of its own.
pub fn try_backward<const D: usize>(loss: &Tensor<D>) -> Result<Gradients, Error> {
    catch(|| loss.backward())
}
