//! Learns a function from points and says what it is at others, for the benchmark of interpolation.
//!
//! Each line of standard input is a point: `1` to learn from it or `0` to guess it, the target, then
//! the features, with spaces between. Each guess is a line `value error` of standard output.

use std::io::{self, Read, Write};

use latlas_predict::regression::{Point, Regression};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let (mut known, mut asked) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let numbers: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [learn, target, features @ ..] = numbers.as_slice() else {
            return Err(format!("`{line}` is not a point").into());
        };
        if *learn == 1.0 {
            known.push(Point {
                features: features.to_vec(),
                targets: vec![*target],
                variance: 0.0,
            });
        } else {
            asked.push(features.to_vec());
        }
    }
    let regression = Regression::fit(&known)?;
    let mut out = io::stdout().lock();
    for features in asked {
        let guess = regression.at(&features)[0];
        writeln!(out, "{} {}", guess.value, guess.error)?;
    }
    Ok(())
}
