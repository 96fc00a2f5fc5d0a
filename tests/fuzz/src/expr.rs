//! Expressions in symbolic dimensions.

use aotfarm_ir::{Bindings, Expr};

/// The text of an expression.
pub(crate) fn run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let expr: Expr = match text.parse() {
        Ok(expr) => expr,
        Err(error) => {
            assert!(error.at <= text.len(), "{error}");
            return false;
        }
    };
    let printed = expr.to_string();
    let read: Expr = printed.parse().unwrap_or_else(|e| panic!("`{printed}`, which was printed, is not read: {e}"));
    if !expr.is_overflow() {
        assert_eq!(read.to_string(), printed, "an expression that was read again is printed otherwise");
    }
    for size in [1, 2, 7, i64::MAX] {
        let mut bindings = Bindings::new();
        for sym in expr.symbols() {
            bindings.insert(sym, size);
        }
        // Whether it overflows may depend on the order of the terms; when neither does, they agree.
        if let (Ok(value), Ok(again)) = (expr.eval(&bindings), read.eval(&bindings)) {
            assert_eq!(value, again, "`{text}` and `{printed}` at {size}");
        }
    }
    true
}
