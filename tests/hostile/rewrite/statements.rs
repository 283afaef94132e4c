//! The walk over a straightened function: loads stay where they are, all else is written where it
//! is needed.

use std::collections::HashMap;

use naga::valid::ModuleInfo;
use naga::{
    Block, Expression, Function, Handle, Module, Scalar, Span, Statement, Type, TypeInner,
    VectorSize,
};

use super::build::{Builder, with_operands, with_parts};
use super::render::Rewrite;
use super::style::Style;
use super::views::Source;
use crate::common::Random;

/// Rewrites every function of a straightened module.
pub fn rewrite(module: &mut Module, info: &ModuleInfo, style: Style) {
    let types = vector_types(module);
    let of = module.clone();
    let mut random = Random::new(style.seed);
    let mut rewritten = |function: &Function, info| {
        let source = Source { module: &of, function, info };
        Rewrite::new(source, style, Random::new(random.bits()), types.clone()).function()
    };
    for (handle, function) in module.functions.iter_mut() {
        *function = rewritten(&of.functions[handle], &info[handle]);
    }
    for (index, entry) in module.entry_points.iter_mut().enumerate() {
        entry.function = rewritten(&of.entry_points[index].function, info.get_entry_point(index));
    }
}

/// Vectors and matrices that components are put together to.
fn vector_types(module: &mut Module) -> HashMap<TypeInner, Handle<Type>> {
    let sizes = [VectorSize::Bi, VectorSize::Tri, VectorSize::Quad];
    let mut inners = Vec::new();
    for rows in sizes {
        inners.extend(
            [Scalar::F32, Scalar::BOOL].map(|scalar| TypeInner::Vector { size: rows, scalar }),
        );
        inners.extend(sizes.map(|columns| TypeInner::Matrix {
            columns,
            rows,
            scalar: Scalar::F32,
        }));
    }
    let mut types = HashMap::new();
    for inner in inners {
        let handle =
            module.types.insert(Type { name: None, inner: inner.clone() }, Span::UNDEFINED);
        types.insert(inner, handle);
    }
    types
}

impl<'a> Rewrite<'a> {
    fn new(
        source: Source<'a>,
        style: Style,
        random: Random,
        types: HashMap<TypeInner, Handle<Type>>,
    ) -> Self {
        let out = Builder::default();
        let values = vec![HashMap::new()];
        let mut rewrite =
            Self { source, style, out, random, values, types, stores: HashMap::new() };
        // Variables keep their handles.
        rewrite.out.locals = source.function.local_variables.clone();
        rewrite.stores_of(&source.function.body);
        rewrite
    }

    /// Notes what is stored in local variables.
    fn stores_of(&mut self, block: &[Statement]) {
        for statement in block {
            match statement {
                Statement::Store { pointer, value } => {
                    if let Some((local, path)) = self.source.target(*pointer) {
                        self.stores.entry(local).or_default().push((path, *value));
                    }
                }
                // A function may store anything.
                Statement::Call { arguments, .. } => {
                    for &argument in arguments {
                        if let Some((local, _)) = self.source.target(argument) {
                            self.stores.entry(local).or_default().push((None, argument));
                        }
                    }
                }
                Statement::Block(inner) => self.stores_of(inner),
                Statement::If { accept, reject, .. } => {
                    self.stores_of(accept);
                    self.stores_of(reject);
                }
                Statement::Switch { cases, .. } => {
                    cases.iter().for_each(|case| self.stores_of(&case.body))
                }
                Statement::Loop { body, continuing, .. } => {
                    self.stores_of(body);
                    self.stores_of(continuing);
                }
                _ => {}
            }
        }
    }

    fn function(mut self) -> Function {
        let mut body = Block::new();
        self.block(&self.source.function.body, &mut body);
        Function {
            local_variables: self.out.locals,
            expressions: self.out.expressions,
            named_expressions: Default::default(),
            body,
            ..self.source.function.clone()
        }
    }

    fn block(&mut self, old: &[Statement], new: &mut Block) {
        for statement in old {
            self.statement(statement, new);
        }
        self.out.emit(new);
    }

    /// A block that runs under a condition.
    fn inner(&mut self, old: &[Statement], outer: &mut Block) -> Block {
        self.out.emit(outer);
        self.out.enter();
        self.values.push(HashMap::new());
        let mut new = Block::new();
        self.block(old, &mut new);
        self.values.pop();
        self.out.leave();
        new
    }

    fn statement(&mut self, statement: &Statement, new: &mut Block) {
        match statement {
            Statement::Emit(range) => {
                for old in range.clone() {
                    if let Expression::Load { .. } = self.source.expression(old) {
                        self.value(old);
                    }
                }
            }
            Statement::Block(inner) => {
                let inner = self.inner(inner, new);
                new.push(Statement::Block(inner), Span::UNDEFINED);
            }
            Statement::If { condition, accept, reject } => {
                let condition = self.value(*condition);
                let [accept, reject] = [accept, reject].map(|block| self.inner(block, new));
                new.push(Statement::If { condition, accept, reject }, Span::UNDEFINED);
            }
            Statement::Switch { selector, cases } => {
                let selector = self.value(*selector);
                let case = |case: &naga::SwitchCase| naga::SwitchCase {
                    body: self.inner(&case.body, new),
                    ..case.clone()
                };
                let cases = cases.iter().map(case).collect();
                new.push(Statement::Switch { selector, cases }, Span::UNDEFINED);
            }
            Statement::Loop { body, continuing, break_if } => {
                self.out.emit(new);
                self.out.enter();
                self.values.push(HashMap::new());
                let [mut new_body, mut new_continuing] = [Block::new(), Block::new()];
                self.block(body, &mut new_body);
                self.block(continuing, &mut new_continuing);
                let break_if = break_if.map(|condition| self.value(condition));
                self.out.emit(&mut new_continuing);
                self.values.pop();
                self.out.leave();
                let continuing = new_continuing;
                new.push(Statement::Loop { body: new_body, continuing, break_if }, Span::UNDEFINED);
            }
            other => {
                let mut results = Vec::new();
                let mapped = with_operands(other, &mut |old| self.value(old), &mut |old| {
                    results.push(old);
                    old
                });
                let mapped = match results.first() {
                    None => mapped,
                    Some(&old) => {
                        let own = self.out.result(self.source.expression(old).clone());
                        self.remember((old, Vec::new()), own);
                        with_operands(&mapped, &mut |same| same, &mut |_| own)
                    }
                };
                self.out.push(mapped, new);
            }
        }
    }

    /// The new expression for a whole one.
    pub(super) fn value(&mut self, old: Handle<Expression>) -> Handle<Expression> {
        if let Some(value) = self.remembered(&(old, Vec::new())) {
            return value;
        }
        let expression = self.source.expression(old);
        let value = match *expression {
            // These are the first to be opaque to `component`, which comes back here.
            Expression::Load { .. } => {
                let new = with_parts(expression, &mut |part| self.value(part));
                self.out.fresh(new)
            }
            Expression::Binary { op, left, right } if is_comparison(op) => {
                self.comparison(old, op, left, right)
            }
            Expression::Select { condition, accept, reject } if self.source.is_f32(old) => {
                match self.finite_arm(condition, accept, reject) {
                    Some(arm) => self.value(arm),
                    None => {
                        let new = with_parts(expression, &mut |part| self.value(part));
                        self.out.pure(new)
                    }
                }
            }
            _ if self.source.is_f32(old) && self.is_written_anew(old) => {
                let paths = self.source.components(old);
                let components: Vec<_> =
                    paths.into_iter().map(|path| self.component((old, path))).collect();
                match self.source.ty(old) {
                    TypeInner::Scalar(_) => components[0],
                    _ => self.composed(old, components),
                }
            }
            _ => {
                let new = with_parts(expression, &mut |part| self.value(part));
                self.out.pure(new)
            }
        };
        self.remember((old, Vec::new()), value)
    }

    /// Whether its components are followed elsewhere or are made of arithmetic.
    fn is_written_anew(&self, old: Handle<Expression>) -> bool {
        self.source.components(old).into_iter().any(|path| {
            let followed = self.source.followed((old, path.clone()));
            followed != (old, path) || self.source.made(&followed) != super::views::Made::Opaque
        })
    }

    /// Components as a vector, or as a matrix, of the type of an expression.
    pub(super) fn composed(
        &mut self,
        old: Handle<Expression>,
        components: Vec<Handle<Expression>>,
    ) -> Handle<Expression> {
        let inner = self.source.ty(old).clone();
        let ty = self.types[&inner];
        let components = match inner {
            TypeInner::Matrix { rows, scalar, .. } => {
                let column = self.types[&TypeInner::Vector { size: rows, scalar }];
                let columns = components.chunks(rows as usize);
                columns
                    .map(|rows| {
                        self.out.pure(Expression::Compose { ty: column, components: rows.to_vec() })
                    })
                    .collect()
            }
            _ => components,
        };
        self.out.pure(Expression::Compose { ty, components })
    }
}

fn is_comparison(op: naga::BinaryOperator) -> bool {
    use naga::BinaryOperator as Op;
    matches!(
        op,
        Op::Equal | Op::NotEqual | Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual
    )
}
