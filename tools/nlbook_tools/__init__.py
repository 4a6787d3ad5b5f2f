"""What maintainers, teachers and CI run: the command line, the notebook runner, the site, the course, the benches."""
