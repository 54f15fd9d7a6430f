//! Where a change can be made, and what it is: found in the syntax of a file, made by insertions into its text.

use syn::{
    Attribute, BinOp, Block, Expr, ExprBinary, ExprMatch, ExprUnary, ImplItemFn, ItemConst, ItemFn, ItemImpl,
    ItemMacro, ItemMod, ItemStatic, Pat, ReturnType, Signature, Type, TypeArray, UnOp,
    spanned::Spanned as _,
    visit::{self, Visit},
};

/// A place in a file where one or several changes can be made.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The line.
    pub(crate) line: usize,
    /// Each change in words.
    pub(crate) changes: Vec<String>,
    /// What is put into the text, so that all of them are in it; `#0` stands for the number of the first one, and so on.
    pub(crate) insertions: Vec<Insertion>,
}

/// A text that goes in at a byte of the file, in place of so many bytes.
#[derive(Clone, Debug)]
pub(crate) struct Insertion {
    /// The byte.
    pub(crate) at: usize,
    /// Bytes that go.
    pub(crate) removed: usize,
    /// The text.
    pub(crate) text: String,
    /// Whether it closes what another one has opened: of several at one byte, those close first that opened last.
    pub(crate) closes: bool,
}

/// All places of a file; one that is inside of another comes after it.
///
/// # Errors
///
/// It is no Rust.
pub(crate) fn sites(text: &str) -> syn::Result<Vec<Site>> {
    let file = syn::parse_file(text)?;
    let mut finder = Finder { sites: Vec::new(), function: String::new() };
    finder.visit_file(&file);
    Ok(finder.sites)
}

struct Finder {
    sites: Vec<Site>,
    function: String,
}

fn open(at: usize, text: impl Into<String>) -> Insertion {
    Insertion { at, removed: 0, text: text.into(), closes: false }
}

fn close(at: usize, text: impl Into<String>) -> Insertion {
    Insertion { at, removed: 0, text: text.into(), closes: true }
}

impl Finder {
    fn add(&mut self, span: proc_macro2::Span, changes: Vec<String>, insertions: Vec<Insertion>) {
        let changes = changes.into_iter().map(|words| format!("{words} in {}", self.function)).collect();
        self.sites.push(Site { line: span.start().line, changes, insertions });
    }

    fn function(&mut self, attributes: &[Attribute], signature: &Signature, body: &Block) {
        if is_test(attributes) || signature.constness.is_some() || signature.unsafety.is_some() {
            return;
        }
        let outer = std::mem::replace(&mut self.function, signature.ident.to_string());
        let answers = answers(&signature.output);
        if !answers.is_empty() {
            let at = body.span().byte_range().start + 1;
            let returns = answers.iter().enumerate();
            let text = returns
                .map(|(index, value)| format!(" if crate::mutant::is(#{index}) {{ return {value}; }}"))
                .collect::<String>();
            let words = answers.iter().map(|value| format!("answers {value:?} at once")).collect();
            self.add(signature.ident.span(), words, vec![open(at, text)]);
        }
        visit::visit_block(self, body);
        self.function = outer;
    }

    fn binary(&mut self, binary: &ExprBinary) {
        let Some((kind, others)) = alternatives(&binary.op) else { return };
        if has_let(&binary.left) || has_let(&binary.right) {
            return;
        }
        let (whole, operator) = (binary.span().byte_range(), binary.op.span().byte_range());
        let left_end = binary.left.span().byte_range().end;
        let right_start = binary.right.span().byte_range().start;
        let sign = sign(&binary.op);
        let take = Insertion { at: operator.start, removed: operator.len(), text: ",".into(), closes: false };
        let insertions = match kind {
            // Not both of the opposites: that is either of them.
            Kind::Logic => vec![
                open(whole.start, "crate::mutant::not(#0, crate::mutant::not(#0, "),
                close(left_end, ")"),
                open(right_start, "crate::mutant::not(#0, "),
                close(whole.end, "))"),
            ],
            Kind::Comparison | Kind::Arithmetic => {
                let (by, at) = if matches!(kind, Kind::Comparison) { ("&", "*") } else { ("", "") };
                let cases: String = others
                    .iter()
                    .enumerate()
                    .map(|(index, other)| {
                        format!("if crate::mutant::is(#{index}) {{ {at}l {other} {at}r }} else ")
                    })
                    .collect();
                vec![
                    open(whole.start, format!("(match ({by}(")),
                    close(left_end, ")"),
                    take,
                    open(right_start, format!("{by}(")),
                    close(whole.end, format!(")) {{ (l, r) => {cases}{{ {at}l {sign} {at}r }} }})")),
                ]
            }
        };
        let words = others.iter().map(|other| format!("{sign} becomes {other}")).collect();
        self.add(binary.op.span(), words, insertions);
    }

    fn arms(&mut self, matched: &ExprMatch) {
        let rest = matched.arms.last().is_some_and(|last| takes_all(&last.pat));
        for (index, arm) in matched.arms.iter().enumerate() {
            match &arm.guard {
                Some((_, guard)) if !has_let(guard) => {
                    let range = guard.span().byte_range();
                    let end = ") || crate::mutant::is(#0)) && !crate::mutant::is(#1))";
                    let words = vec!["a guard is true".to_owned(), "a guard is false".to_owned()];
                    self.add(guard.span(), words, vec![open(range.start, "((("), close(range.end, end)]);
                }
                None if rest && index + 1 < matched.arms.len() => {
                    let at = arm.pat.span().byte_range().end;
                    let text = vec![close(at, " if !crate::mutant::is(#0)")];
                    self.add(arm.pat.span(), vec!["an arm goes".to_owned()], text);
                }
                _ => {}
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Logic,
    Comparison,
    Arithmetic,
}

fn alternatives(operator: &BinOp) -> Option<(Kind, &'static [&'static str])> {
    Some(match operator {
        BinOp::And(_) => (Kind::Logic, &["||"]),
        BinOp::Or(_) => (Kind::Logic, &["&&"]),
        BinOp::Eq(_) => (Kind::Comparison, &["!="]),
        BinOp::Ne(_) => (Kind::Comparison, &["=="]),
        BinOp::Lt(_) => (Kind::Comparison, &["<=", ">"]),
        BinOp::Le(_) => (Kind::Comparison, &["<"]),
        BinOp::Gt(_) => (Kind::Comparison, &[">=", "<"]),
        BinOp::Ge(_) => (Kind::Comparison, &[">"]),
        BinOp::Add(_) => (Kind::Arithmetic, &["-"]),
        BinOp::Sub(_) => (Kind::Arithmetic, &["+"]),
        BinOp::Mul(_) => (Kind::Arithmetic, &["+"]),
        BinOp::Div(_) | BinOp::Rem(_) => (Kind::Arithmetic, &["*"]),
        BinOp::BitAnd(_) => (Kind::Arithmetic, &["|"]),
        BinOp::BitOr(_) => (Kind::Arithmetic, &["&"]),
        BinOp::Shl(_) => (Kind::Arithmetic, &[">>"]),
        BinOp::Shr(_) => (Kind::Arithmetic, &["<<"]),
        _ => return None,
    })
}

fn sign(operator: &BinOp) -> &'static str {
    match operator {
        BinOp::And(_) => "&&",
        BinOp::Or(_) => "||",
        BinOp::Eq(_) => "==",
        BinOp::Ne(_) => "!=",
        BinOp::Lt(_) => "<",
        BinOp::Le(_) => "<=",
        BinOp::Gt(_) => ">",
        BinOp::Ge(_) => ">=",
        BinOp::Add(_) => "+",
        BinOp::Sub(_) => "-",
        BinOp::Mul(_) => "*",
        BinOp::Div(_) => "/",
        BinOp::Rem(_) => "%",
        BinOp::BitAnd(_) => "&",
        BinOp::BitOr(_) => "|",
        BinOp::Shl(_) => "<<",
        BinOp::Shr(_) => ">>",
        _ => "?",
    }
}

/// A name is a variable only if it is written as one: `None` is not.
fn takes_all(pattern: &Pat) -> bool {
    match pattern {
        Pat::Wild(_) => true,
        Pat::Ident(name) => name.ident.to_string().starts_with(|first: char| first.is_lowercase()),
        _ => false,
    }
}

/// What a function could answer without doing anything.
fn answers(output: &ReturnType) -> Vec<String> {
    match output {
        ReturnType::Default => vec![String::new()],
        ReturnType::Type(_, of) => values(of),
    }
}

fn values(of: &Type) -> Vec<String> {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    match of {
        Type::Tuple(tuple) if tuple.elems.is_empty() => texts(&["()"]),
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else { return Vec::new() };
            match last.ident.to_string().as_str() {
                "bool" => texts(&["true", "false"]),
                "u8" | "u16" | "u32" | "u64" | "usize" | "i32" | "i64" | "u128" => texts(&["0", "1"]),
                "Option" => texts(&["None"]),
                "Vec" => texts(&["Vec::new()"]),
                "String" => texts(&["String::new()"]),
                "Result" => first_argument(last)
                    .map(values)
                    .unwrap_or_default()
                    .iter()
                    .map(|value| format!("Ok({value})"))
                    .collect(),
                "Self" => Vec::new(),
                _ => texts(&["Default::default()"]),
            }
        }
        _ => Vec::new(),
    }
}

fn first_argument(segment: &syn::PathSegment) -> Option<&Type> {
    let syn::PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        syn::GenericArgument::Type(of) => Some(of),
        _ => None,
    })
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        path.is_ident("test")
            || path.is_ident("cfg")
                && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string().contains("test"))
    })
}

/// Chains with `let` cannot be taken apart.
fn has_let(expression: &Expr) -> bool {
    struct Look(bool);
    impl<'a> Visit<'a> for Look {
        fn visit_expr_let(&mut self, _: &'a syn::ExprLet) {
            self.0 = true;
        }
        fn visit_block(&mut self, _: &'a Block) {}
    }
    let mut look = Look(false);
    look.visit_expr(expression);
    look.0
}

impl<'a> Visit<'a> for Finder {
    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'a ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_item_impl(&mut self, item: &'a ItemImpl) {
        // How things are shown to people who look for mistakes.
        let shown = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
        if shown.is_none_or(|name| name.ident != "Debug") {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    // What is worked out by the compiler cannot ask which change is on.
    fn visit_item_const(&mut self, _: &'a ItemConst) {}
    fn visit_impl_item_const(&mut self, _: &'a syn::ImplItemConst) {}
    fn visit_item_static(&mut self, _: &'a ItemStatic) {}
    fn visit_item_macro(&mut self, _: &'a ItemMacro) {}
    fn visit_item_enum(&mut self, _: &'a syn::ItemEnum) {}
    fn visit_type_array(&mut self, _: &'a TypeArray) {}
    fn visit_expr_repeat(&mut self, _: &'a syn::ExprRepeat) {}
    fn visit_generic_argument(&mut self, _: &'a syn::GenericArgument) {}
    fn visit_pat(&mut self, _: &'a Pat) {}

    fn visit_expr_binary(&mut self, binary: &'a ExprBinary) {
        self.binary(binary);
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'a ExprUnary) {
        if let UnOp::Not(_) = unary.op
            && !has_let(&unary.expr)
        {
            let range = unary.span().byte_range();
            let text = vec![open(range.start, "(crate::mutant::is(#0) ^ "), close(range.end, ")")];
            self.add(unary.span(), vec!["! goes".to_owned()], text);
        }
        visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_match(&mut self, matched: &'a ExprMatch) {
        self.arms(matched);
        visit::visit_expr_match(self, matched);
    }
}
