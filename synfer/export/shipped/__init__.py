"""Python files that go out with an export and run without synfer: diffusers and torch alone; nothing else of ours."""
