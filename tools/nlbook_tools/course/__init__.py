"""A course from one source: the chapters and their exercises become sets for students, solutions and teacher's notes.

sets       release.py cuts a chapter for students, marked.py puts nbgrader's marks on it, sets.py writes the folders;
           tasks.py finds exercises in a notebook; variants.py draws other numbers from a seed (variants.yaml)
teacher    syllabi.yaml and plans.py, minutes.py, demos.yaml and notes.py; docs.py makes notebooks/teaching
exam       exam.yaml holds twenty items, bank.py draws them, exam.py makes the notebook and the key
grading    handed.py reads a submission, fence.py is the sandbox, worker.py runs in it, border.py is what crosses its
           border, box.py asks, judged.py marks, grade.py grades a folder; samples.py writes four submissions to try it
"""
