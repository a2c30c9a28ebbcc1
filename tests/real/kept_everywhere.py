"""What our shim keeps with every containerd and over both wires.

The promises are those of test_ctr.py and test_restart.py.  Whatever stands in a test module by its
name is a test of that module, with its fixtures: so a module that imports all of this keeps them
again, with a `shared_daemon`, an `own_daemon` and a `runtime` of its own.
"""

from __future__ import annotations

from . import test_ctr, test_restart

test_run = test_ctr.test_run_gives_output_and_exit_status
test_stdin = test_ctr.test_run_reads_stdin_to_its_end
test_absent_program = test_ctr.test_a_program_that_is_not_there
test_kill = test_ctr.test_kill_ends_an_init_that_ignores_term
test_exec = test_ctr.test_exec_gives_output_and_exit_status
test_kill_exec = test_ctr.test_kill_reaches_one_exec
test_pause = test_ctr.test_pause_and_resume
test_ps = test_ctr.test_ps_lists_init_and_execs
test_metrics = test_ctr.test_metrics
test_oom = test_ctr.test_oom_is_told_before_the_exit
test_restart_of_containerd = test_restart.test_a_container_outlives_containerd
test_killed_shim = test_restart.test_containerd_reports_the_end_of_a_killed_shim
test_kept_status = test_restart.test_delete_knows_the_status_after_the_shim_was_killed
