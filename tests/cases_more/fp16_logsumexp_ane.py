# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_logsumexp_ane', tier='narrow', verdict='FAIL', culprit_op=['reduce_log_sum_exp'],
 source_url='https://github.com/apple/coremltools/issues/2690',
 expect='the sum of exponentials overflows inside the op on the Neural Engine')
class M(nn.Module):
    def forward(self, x): return torch.logsumexp(x, dim=-1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 32) * 4 + torch.tensor([0.0, 5.0, 10.0, 15.0])[:, None],)
