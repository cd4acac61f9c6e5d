//! Each rule can fail: a text that breaks it, and one that does not.

use super::*;

#[test]
fn a_long_file_is_found() {
    let text = "\n".repeat(FILE_LINES_MAX);
    assert_eq!(found(too_long_file, "src/a.rs", &text), [0; 0]);
    assert_eq!(
        found(too_long_file, "src/a.rs", &(text + "\n")),
        [FILE_LINES_MAX]
    );
    let main = "\n".repeat(MAIN_LINES_MAX + 1);
    assert_eq!(found(too_long_file, "src/main.rs", &main), [MAIN_LINES_MAX]);
}

#[test]
fn a_long_function_is_found() {
    let function = |lines: usize| format!("\nfn f() {{{}}}\n", "\n".repeat(lines - 1));
    assert_eq!(
        found(too_long_functions, "a.rs", &function(FUNCTION_LINES_MAX)),
        [0; 0]
    );
    assert_eq!(
        found(
            too_long_functions,
            "a.rs",
            &function(FUNCTION_LINES_MAX + 1)
        ),
        [2]
    );
}

#[test]
fn a_file_without_front_matter_is_found() {
    assert_eq!(found(missing_front_matter, "a.rs", "//! What.\n"), [0; 0]);
    assert_eq!(found(missing_front_matter, "a.rs", "use x;\n"), [1]);
}

#[test]
fn a_wide_line_is_found_by_characters_not_bytes() {
    let wide = "u".repeat(COLUMNS_MAX);
    let text = format!(
        "{}\n{wide}u\nf(\"{wide}\");\n// \"{wide}\"\n",
        "ü".repeat(COLUMNS_MAX)
    );
    assert_eq!(found(wide_lines, "a.rs", &text), [2, 4]);
}

#[test]
fn a_machine_path_is_found() {
    let text = concat!("fine\nlog to /tm", "p/x\n/workshop\n");
    assert_eq!(found(machine_paths, "README.md", text), [2]);
}

#[test]
fn unfinished_work_is_found() {
    let text = concat!("// TO", "DO: more\nfn f() { todo", "!() }\nlet todo = 1;\n");
    assert_eq!(found(unfinished, "a.rs", text), [1, 2]);
}

#[test]
fn a_clock_read_is_found_except_in_tests_the_shell_and_the_lab() {
    let text = "fn f() { Instant::now() }\n#[cfg(test)]\nmod tests { fn g() { Instant::now() } }\n";
    assert_eq!(found(clock_reads, "src/actors/a.rs", text), [1]);
    assert_eq!(found(clock_reads, "crates/core/src/a.rs", text), [1]);
    for path in ["src/shell.rs", "crates/lab/src/a.rs", "tests/a.rs"] {
        assert_eq!(found(clock_reads, path, text), [0; 0], "{path}");
    }
}

#[test]
fn a_span_is_found_in_the_gateway_only() {
    let text = "#[instrument]\nfn f() { let _s = tracing::info_span!(\"x\"); }\n";
    let mut lines = found(spans, "src/actors/a.rs", text);
    lines.sort_unstable();
    assert_eq!(lines, [1, 2]);
    assert_eq!(found(spans, "crates/lab/src/a.rs", text), [0; 0]);
}

#[test]
fn io_is_found_in_core_only() {
    let text = "// tokio\nuse tokio::x;\nuse std::net::UdpSocket;\nstd::fs::read(x)\n";
    let mut lines = found(io_in_core, "crates/core/src/a.rs", text);
    lines.sort_unstable();
    assert_eq!(lines, [2, 3, 4]);
    assert_eq!(found(io_in_core, "src/a.rs", text), [0; 0]);
}

#[test]
fn json_is_found_outside_the_wire() {
    let text = "use serde_json::Value;\n";
    assert_eq!(
        found(json_outside_the_wire, "crates/core/src/policy/a.rs", text),
        [1]
    );
    assert_eq!(
        found(
            json_outside_the_wire,
            "crates/core/src/portal/wire.rs",
            text
        ),
        [0; 0]
    );
    assert_eq!(
        found(json_outside_the_wire, "crates/lab/src/a.rs", text),
        [0; 0]
    );
}

#[test]
fn a_cheating_test_is_found() {
    let text = "#[ignore]\nfn a() {}\n#[should_panic(expected = \"x\")]\nstd::thread::sleep(d);\n";
    let mut lines = found(tests_that_cheat, "tests/a.rs", text);
    lines.sort_unstable();
    assert_eq!(lines, [1, 3, 4]);
    assert_eq!(
        found(
            tests_that_cheat,
            "tests/a.rs",
            "// #[ignore]\nlet ignore = 1;"
        ),
        [0; 0]
    );
}

#[test]
fn a_foreign_dependency_is_found() {
    let manifest =
        "[dependencies]\nserde = \"1\"\ntokio = \"1\"\n[dev-dependencies]\nother = \"1\"\n";
    let found = foreign_core_dependencies(manifest);
    assert_eq!(found, [finding(1, "depends on tokio")]);
}
