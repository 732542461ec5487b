use super::*;

fn problem(code: Code, why: &str) -> Problem {
    Problem::new(code, "cannot do it").because(why).fix("do that").at("here[3]")
}

#[test]
fn several_problems_come_back_exactly_as_they_were() {
    let sent = Problems(vec![problem(codes::BAD_NAME, "línea\nzwei"), problem(codes::TOO_LARGE, "")]);
    let status = to_status(sent.clone());
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(to_problems(&status), sent);
}

#[test]
fn each_category_has_a_grpc_code_of_its_own_and_every_known_code_comes_back() {
    for entry in codes::ALL.iter().flat_map(|table| table.iter()) {
        let status = to_status(problem(entry.code, "so it is"));
        assert_eq!(status.code(), grpc_code(entry.category));
        assert_eq!(to_problem(&status), problem(entry.code, "so it is"));
    }
}

#[test]
fn details_fit_a_header_and_say_what_was_left_out() {
    let sent = Problems((0..100).map(|_| problem(codes::BAD_VALUE, &"x".repeat(5000))).collect());
    let status = to_status(sent);
    assert!(status.details().len() <= MAX_STATUS_DETAILS + 1024, "{}", status.details().len());
    let read = to_problems(&status);
    assert!(read.0.len() > 1);
    assert!(read.0.last().unwrap().what.contains("more problems"));
}

#[test]
fn a_status_from_elsewhere_becomes_a_problem_by_its_code() {
    for (status, code) in [
        (Status::unavailable("connection refused"), codes::UNREACHABLE),
        (Status::unknown("transport error"), codes::UNREACHABLE),
        (Status::deadline_exceeded(""), codes::DEADLINE),
        (Status::cancelled("Timeout expired"), codes::DEADLINE),
        (Status::unimplemented(""), codes::VERSION_SKEW),
        (Status::out_of_range("Error, decoded message length too large: found 9 bytes"), codes::TOO_LARGE),
        (Status::resource_exhausted(""), codes::OVERLOADED),
        (Status::with_details(tonic::Code::Internal, "x", vec![255, 255].into()), codes::INTERNAL),
    ] {
        assert_eq!(to_problem(&status).code, code, "{status:?}");
    }
}

#[test]
fn a_problem_among_the_causes_is_what_failed() {
    let cause: Box<dyn Error + Send + Sync> = Box::new(tonic::ConnectError(Box::new(problem(codes::WRONG_CA, "no"))));
    assert_eq!(to_problem(&Status::from_error(cause)), problem(codes::WRONG_CA, "no"));
}
