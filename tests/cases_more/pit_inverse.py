# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_inverse', verdict='FAIL', culprit_op='inverse',
 source_url='https://github.com/apple/coremltools/pull/2773',
 expect='1/x has 1e-4 added below')
class M(nn.Module):
    def forward(self, x): return 1 / x
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.tensor([[1e-3, 2e-3, 5e-4]]),)
