#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| latlas_fuzz::parsers::model(bytes));
