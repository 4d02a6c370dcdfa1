# SPDX-License-Identifier: Apache-2.0
"""What does GitHub ask for, and how does it get its answer?

Three processes, one per step of action.yml, so that the one in which code of the pull request runs never held a token:

    python -P -m gate.action prepare     token, network: is a model concerned? export the checkout, bring wheels and files
    python -P -m gate.action evaluate    neither: `gate check` in a container or in namespaces
    python -P -m gate.action report      token: comment, summary, annotations, outputs, and only then the exit code

`-P` everywhere: the working directory is the pull request's, and a `gate/` in it must not be imported instead of ours. This package
and cli.py are the only readers of os.environ. It loads neither torch nor numpy, so that "no model is concerned" is said at once.
"""
