//! Every function of the C interface, called wrongly in every way that its parameters allow: a documented status comes
//! back, never a crash. The calls are generated from the header, so a new function is tested without being named here.

use std::fmt::Write;
use std::process::Command;

use crate::support::{Function, bundle, compile, crate_dir, functions, run, scratch, with_soname};

/// The status that a call must come back with.
enum Wanted {
    /// Success or a condition.
    Success,
    /// Exactly this.
    Exactly(&'static str),
    /// Anything that is documented.
    Documented,
}

/// A handle type and the one that is alive.
const HANDLES: [(&str, &str); 4] = [
    ("pi0_policy *", "policy"),
    ("pi0_runtime *", "robot.runtime"),
    ("pi0_observation_writer *", "robot.writer"),
    ("pi0_controller *", "robot.controller"),
];

fn handle_of(kind: &str) -> Option<&'static str> {
    let kind = kind.trim_start_matches("const ");
    HANDLES.iter().find(|(name, _)| *name == kind).map(|(_, live)| *live)
}

/// The argument that is right.
fn valid(function: &str, kind: &str, name: &str) -> String {
    if let Some(live) = handle_of(kind) {
        return live.into();
    }
    let plain = kind.trim_start_matches("const ");
    let text = match (plain, name) {
        ("char *", "bundle") => "bundle",
        ("char *", "name") if kind == "char *" => "text",
        ("char *", "name") => "camera_names[0]",
        ("char *", "path") => "\"/dev/null/nothing\"",
        ("char *", _) => "\"pick up the cube\"",
        ("size_t", "name_size") => "sizeof text",
        ("size_t", "actions_len") => "(size_t)robot.info.action_horizon * robot.info.action_dim",
        ("size_t", "action_len") => "robot.info.action_dim",
        ("size_t", "len") if function.ends_with("writer_set_state") => "robot.info.state_dim",
        ("size_t", "len") => "robot.info.action_dim",
        ("size_t", "row_bytes") => "WIDTH * 3",
        ("size_t", "rgb_size") => "sizeof rgb",
        ("size_t", "struct_size") => "sizeof *OUT",
        ("uint32_t", "width") => "WIDTH",
        ("uint32_t", "height") => "HEIGHT",
        ("uint32_t", "num_steps" | "level") => "1",
        ("uint32_t", _) => "0",
        ("uint64_t", "captured_ns") => "pi0_now_ns()",
        ("uint64_t", _) => "0",
        ("int32_t", _) => "-1",
        ("float *", "limits") => "ones",
        ("float *", _) => "values",
        ("uint8_t *", _) if kind == plain => "rgb",
        ("uint8_t *", _) => "pixels",
        ("uint8_t **", _) => "&pixels_out",
        ("uint32_t *", _) => "&number",
        ("void *", _) => "NULL",
        ("pi0_log_callback", _) => "NULL",
        ("pi0_error *", _) => "&error",
        _ if plain.ends_with("**") => return format!("&{}_out", plain.trim_end_matches(" **")),
        _ if plain.ends_with('*') => {
            return format!("&{}", plain.trim_start_matches("pi0_").trim_end_matches(" *"));
        }
        _ => panic!("{function}: no right value for {kind} {name}; give one here"),
    };
    text.into()
}

/// Arguments that are wrong, or at an edge.
fn wrong(function: &Function, kind: &str, name: &str) -> Vec<(String, Wanted)> {
    let frees = function.name.ends_with("_free");
    let is = |text: &str, wanted| (text.to_owned(), wanted);
    if let Some(live) = handle_of(kind) {
        let null = if frees { Wanted::Success } else { Wanted::Exactly("PI0_ERR_NULL") };
        let mut list = vec![is("NULL", null)];
        let others = HANDLES.iter().filter(|(_, other)| *other != live).map(|(_, other)| *other);
        let garbage =
            ["(void *)1", "(void *)0xdeadbeefdeadbeef", "(void *)-1", "(void *)values", "(void *)0x1000"];
        let freed = format!("freed[{}]", HANDLES.iter().position(|(_, l)| *l == live).unwrap_or_default());
        for text in others.chain(garbage).chain([freed.as_str()]) {
            list.push((format!("(void *)({text})"), Wanted::Exactly("PI0_ERR_HANDLE")));
        }
        list
    } else if kind.ends_with("*") && kind.contains("pi0_") && !kind.ends_with("**") && kind != "pi0_error *" {
        let what = valid(&function.name, kind, name);
        let mut list = vec![is("NULL", Wanted::Documented)];
        for size in ["0", "1", "7", "sizeof *OUT - 1", "sizeof *OUT + 8", "(size_t)-1"] {
            let size = size.replace("*OUT", what.trim_start_matches('&'));
            // The structure itself says a wrong size; where the size is an argument, it is varied there.
            let given = format!("(*(size_t *){what} = {size}, {what})");
            let wanted = if function.name.ends_with("_default") {
                Wanted::Documented
            } else {
                Wanted::Exactly("PI0_ERR_STRUCT_SIZE")
            };
            list.push((given, wanted));
        }
        list
    } else if kind.ends_with('*') || kind.ends_with("callback") {
        let mut list = vec![is("NULL", Wanted::Documented)];
        if kind == "const char *" {
            list.extend([is("\"\\xff\"", Wanted::Documented), is("\"\"", Wanted::Documented)]);
            list.push(is("long_text", Wanted::Documented));
        }
        list
    } else if name == "struct_size" {
        ["0", "1", "7", "sizeof *OUT - 1", "sizeof *OUT + 8", "(size_t)-1"]
            .map(|text| is(text, Wanted::Exactly("PI0_ERR_STRUCT_SIZE")))
            .into()
    } else if kind == "size_t" {
        let wanted =
            || if name == "name_size" { Wanted::Documented } else { Wanted::Exactly("PI0_ERR_SIZE") };
        vec![is("0", wanted()), is("1", wanted()), is("(size_t)-1", Wanted::Documented)]
    } else if name == "timeout_ns" {
        vec![is("1000", Wanted::Documented)]
    } else {
        let all =
            if kind.starts_with("int") { ["-2", "9999", "INT32_MIN"] } else { ["0", "1", "UINT32_MAX"] };
        all.map(|text| is(text, Wanted::Documented)).into()
    }
}

/// One call, with the world put right before it.
fn call(out: &mut String, function: &Function, arguments: &[String], what: &str, wanted: &Wanted) {
    let first = arguments.first().map_or("", |a| a.trim_start_matches('&'));
    let arguments = arguments.join(", ").replace("*OUT", first);
    let exact = match wanted {
        Wanted::Success => "SUCCESS",
        Wanted::Exactly(status) => status,
        Wanted::Documented => "DOCUMENTED",
    };
    let name = &function.name;
    let what = what.replace('\\', "\\\\").replace('"', "'");
    writeln!(out, "    world();\n    expect(\"{what}\", {name}({arguments}), allowed, sizeof allowed / sizeof *allowed, {exact});")
        .unwrap();
}

fn test_of(function: &Function) -> String {
    let name = &function.name;
    let right: Vec<String> = function.parameters.iter().map(|(k, n)| valid(name, k, n)).collect();
    let mut out = format!("static void test_{name}(void)\n{{\n");
    writeln!(out, "    static const pi0_status allowed[] = {{{}}};", function.statuses().join(", ")).unwrap();
    // This one writes to a path that cannot be.
    let success =
        || if name.ends_with("flight_record") { Wanted::Exactly("PI0_ERR_IO") } else { Wanted::Success };
    call(&mut out, function, &right, &format!("{name}, rightly"), &success());
    if name.ends_with("_free") {
        let live = &right[0];
        writeln!(out, "    world();\n    void *freed_now = {live};\n    {name}({live});").unwrap();
        writeln!(
            out,
            "    expect(\"{name}, again\", {name}(freed_now), allowed, sizeof allowed / sizeof *allowed, PI0_ERR_HANDLE);"
        )
        .unwrap();
    }
    for (place, (kind, parameter)) in function.parameters.iter().enumerate() {
        for (argument, wanted) in wrong(function, kind, parameter) {
            let mut arguments = right.clone();
            let what = format!("{name} with {parameter} = {argument}");
            arguments[place] = argument;
            call(&mut out, function, &arguments, &what, &wanted);
        }
    }
    if matches!(function.says("Thread:"), Some("control" | "sensor")) {
        let arguments = right.join(", ");
        writeln!(out, "    world();\n    owned_by_another_thread();").unwrap();
        writeln!(
            out,
            "    expect(\"{name}, wrong thread\", {name}({arguments}), allowed, sizeof allowed / sizeof *allowed, PI0_ERR_THREAD);"
        )
        .unwrap();
    }
    // After the end of inference, everything is still a documented status.
    let arguments = right.join(", ").replace("*OUT", right.first().map_or("", |a| a.trim_start_matches('&')));
    writeln!(out, "    world();\n    pi0_runtime_stop(robot.runtime, NULL);").unwrap();
    writeln!(
        out,
        "    expect(\"{name}, stopped\", {name}({arguments}), allowed, sizeof allowed / sizeof *allowed, DOCUMENTED);\n}}\n"
    )
    .unwrap();
    out
}

#[test]
fn every_function_called_wrongly_gives_a_documented_status() {
    with_soname();
    let functions: Vec<Function> = functions().into_iter().filter(|f| f.returns == "pi0_status").collect();
    let mut source = String::from("#include \"misuse.h\"\n\n");
    for function in &functions {
        source += &test_of(function);
    }
    source +=
        "int main(int argc, char **argv)\n{\n    CHECK(argc == 2);\n    bundle = argv[1];\n    prepare();\n";
    for function in &functions {
        writeln!(source, "    test_{}();", function.name).unwrap();
    }
    source += "    return finish();\n}\n";

    let dir = scratch();
    let (file, program) = (dir.path().join("misuse.c"), dir.path().join("misuse"));
    std::fs::write(&file, source).unwrap();
    let include = format!("-I{}", crate_dir().join("tests/c").display());
    // What is wrong on purpose, a compiler may see.
    compile("gcc", &file, &program, &[&include, "-Wno-format-truncation", "-Wno-stringop-overflow"]);
    let told = run(Command::new(&program).arg(bundle()));
    let calls: usize = told.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a count");
    println!("{calls} calls of {} functions", functions.len());
    assert!(calls > 10 * functions.len(), "{told}");
}
