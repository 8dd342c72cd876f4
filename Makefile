# Everything below sets up its own .venv: a machine needs Python 3.11, make and git.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo results parity docs test test-slow check tree lock wheel bench oracles clean distclean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

demo: .venv/installed  ## prompts, images, clones, a robustness table, a report
	$(BIN)/synclones demo

results: .venv/installed  ## the same with more images, three trainings of each clone, and of CLIP, probes and last layers
	$(BIN)/synclones demo --images 4500 --seeds 3 --out lab-results --table docs/results.md
	$(BIN)/python lab/objectives.py --experiment lab-results --seeds 3 --table docs/results.md

# The peers' environment: the same torch, timm and open_clip, a webdataset whose ends of shards open_clip's trainer
# understands (open_clip #935), and nothing of this project (an editable install is not seen through a line of a .pth file).
PEERS := .venv/peers
$(PEERS)/installed: .venv/installed
	$(BIN)/python -m venv $(PEERS)
	echo "$(CURDIR)"/.venv/lib/*/site-packages > "$$(echo $(PEERS)/lib/*/site-packages)/beside.pth"
	$(PEERS)/bin/pip install --quiet --no-warn-conflicts 'webdataset<0.2.96'
	touch $@

parity: $(PEERS)/installed  ## the same networks and shards, trained by peers' code and ours; CIFAR10=folder of its tars
	$(BIN)/python benchmarks/parity/run.py --peer-python $(PEERS)/bin/python --records docs/parity.csv --table docs/parity.md $(if $(CIFAR10),--worlds lab cifar10 --cifar10 "$(CIFAR10)")

docs: .venv/installed  ## the documents as a site, in build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist worksteal

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	mkdir -p .venv/types && ln -sfn "$(CURDIR)" .venv/types/synclones
	cd .venv/types && MYPYPATH=. ../bin/mypy --config-file "$(CURDIR)/pyproject.toml" --namespace-packages --explicit-package-bases -p synclones.prompts -p synclones.generate -p synclones.lab -m synclones.cli
	cd .venv/types && MYPYPATH=. ../bin/mypy --config-file "$(CURDIR)/pyproject.toml" --namespace-packages --explicit-package-bases --strict -p synclones.base -p synclones.shards -p synclones.models -p synclones.train -p synclones.evaluate -p synclones.ablate -p synclones.serve -m synclones.api
	$(BIN)/python -m pytest --quiet tests/test_house.py tests/test_tree.py

tree: .venv/installed  ## the tree of docs/design.md, from the first line of every file
	$(BIN)/python docs/tree.py

lock: .venv/installed  ## the versions of this environment, which `pip install -r requirements.lock` gives back
	{ sed -n '/^#/p' requirements.lock; $(BIN)/pip freeze --exclude-editable; } > .venv/lock && mv .venv/lock requirements.lock

wheel: .venv/installed  ## dist/*.whl for others; REPOSITORY=https://host/owner/name, where its README's pictures and links lie
	$(BIN)/python docs/wheel.py --repository "$(REPOSITORY)"

bench: .venv/installed
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

oracles: $(PEERS)/installed  ## fixtures by other programs, in environments of their own: they bring what the project does without
	$(PYTHON) -m venv .venv-oracles
	.venv-oracles/bin/pip install --quiet imagecorruptions-imaug==1.1.5
	.venv-oracles/bin/python tests/oracles/corruptions.py
	$(PEERS)/bin/pip install --quiet --no-deps netcal==1.4.0 torchmetrics==1.9.0 lightning-utilities==0.15.3
	$(PEERS)/bin/python tests/oracles/calibration.py

clean:  ## what this file and the tools of development made; sets, runs and results stay
	rm -rf .venv .venv-oracles build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean  ## and what commands make of nothing, the lab's sets, runs and results; yours stay, see the README
	rm -rf data/lab data/lab-real-train data/lab-real-test data/lab-robust data/.lab*.lock runs/.lab.lab.lock
	rm -rf data/prompts/lab-clip-templates.parquet runs/lab results/lab results/lab-suite lab-demo lab-results parity
	-rmdir data/prompts data runs results 2>/dev/null
